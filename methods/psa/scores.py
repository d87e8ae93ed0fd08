"""CRF scores of seeds under two background exponents: files that a training's labels are made of."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from common.crf.dense import crf_pool, seed_crf
from common.crf.options import crf_folder
from common.data.dataset import ImageSet, read_image
from common.data.outputs import StampedFolder, write_by_jobs
from common.data.seeds import FORMATS, write_seed
from common.masks.from_seeds import read_maps, require_maps, seed_settings
from common.run.device import Runtime
from common.run.errors import UserError
from common.run.pool import usable_workers
from common.seeds.products import CRFFolders
from methods.psa.config import ScoresConfig


class Scores(NamedTuple):
    """Marginals of both exponents, float32 (K + 1, H, W) each."""

    low: np.ndarray
    high: np.ndarray


def write_scores(
    images: ImageSet, seeds: Path, folder: Path, config: ScoresConfig, runtime: Runtime, overwrite: bool
) -> int:
    """Writes the missing scores of an image set, ``<folder>/<alpha>/<id>``, in a pool of processes.

    Those that are older than their seed are made again.

    Args:
        overwrite: whether scores that are there are deleted.

    Returns:
        How many images were worked on, by all processes together.

    Raises:
        UserError: there are scores of other settings, or a seed is missing or unfit.
    """
    for alpha in config.alphas():
        settings = {**seed_settings(seeds), "alpha": alpha, **config.settings()}
        StampedFolder(crf_folder(folder, alpha), settings, FORMATS, runtime, overwrite, "CRF scores", "another --name")

    def job(index: int) -> tuple[Any, ...]:
        return score_image, images.images[index], images.ids[index], seeds, folder, config

    folders = CRFFolders(folder, config.alphas(), seeds, config.format)
    pool = crf_pool(usable_workers(runtime.config.num_workers), config)
    return write_by_jobs(images, folders, job, pool, runtime.processes, "dense CRF")


def score_image(image_path: Path, image_id: str, seeds: Path, folder: Path, config: ScoresConfig) -> None:
    """Writes an image's scores of both exponents."""
    image = np.array(read_image(image_path))
    seed = read_maps(seeds, image_id, image.shape[:2])
    for alpha in config.alphas():
        write_seed(crf_folder(folder, alpha), image_id, seed_crf(image, seed, alpha, config), config.format, stride=1)


class ScoredImages:
    """Images with their scores, as a training reads them."""

    def __init__(self, images: ImageSet, folder: Path, config: ScoresConfig, made_by: str) -> None:
        """Opens both.

        Args:
            made_by: the command that writes the scores, for the message.

        Raises:
            UserError: images have no scores.
        """
        self.images, self.folders = images, [crf_folder(folder, alpha) for alpha in config.alphas()]
        for path in self.folders:
            require_maps(images, path, made_by)

    def load(self, index: int) -> tuple[Image.Image, Scores]:
        """An image and its scores.

        Raises:
            UserError: they do not belong together.
        """
        image, image_id = self.images.load_image(index), self.images.ids[index]
        low, high = (read_maps(folder, image_id, image.size[::-1]) for folder in self.folders)
        if not low or low.keys() != high.keys():
            raise UserError(
                f"the scores of {image_id} in {self.folders[0]} and {self.folders[1]} are of different labels: "
                f"{list(low)} and {list(high)}"
            )
        return image, Scores(*(np.stack(list(maps.values())) for maps in (low, high)))
