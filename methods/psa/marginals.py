"""CRF marginals of seeds under two background exponents: the files that AffinityNet's targets are made from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from common.crf.dense import crf_pool, seed_crf
from common.crf.options import crf_folder
from common.data.dataset import ImageSet
from common.data.images import ImageFile
from common.data.outputs import write_by_jobs
from common.data.seeds import find_seed, write_seed
from common.data.stamp import MARGINALS
from common.data.thresholds import calibrated
from common.masks.from_seeds import NONE, read_maps, require_maps, source_settings
from common.run.device import Runtime
from common.run.errors import UserError
from common.run.pool import usable_workers
from common.seeds.products import CRFFolders, open_crf_folders
from methods.psa.config import PSACRFConfig


class Marginals(NamedTuple):
    """An image's marginals under both exponents, float32 (n + 1, H, W) each: background, then its n classes."""

    low: np.ndarray
    high: np.ndarray


def write_marginals(
    images: ImageSet, seeds: Path, folder: Path, config: PSACRFConfig, runtime: Runtime, overwrite: bool,
    thresholds: Mapping[int, float] = NONE,
) -> int:  # fmt: skip
    """Writes the missing marginals of an image set, ``<folder>/<alpha>/<id>``, in a pool of processes.

    Files that are older than their seed are made again.

    Args:
        overwrite: whether existing marginals are deleted first.
        thresholds: of classes, by which the seeds are calibrated.

    Returns:
        Number of images worked on, by all processes together.

    Raises:
        UserError: there are marginals of other settings, or a seed is missing or unfit.
    """
    settings = {**source_settings(seeds, thresholds), **config.settings()}
    open_crf_folders(images, seeds, folder, config.alphas(), settings, "psa", runtime, overwrite)

    def job(index: int) -> tuple[Any, ...]:
        return write_image_marginals, images.file(index), images.ids[index], seeds, folder, config, thresholds

    folders = CRFFolders(folder, config.alphas(), seeds, config.format)
    pool = crf_pool(usable_workers(runtime.config.num_workers), config)
    return write_by_jobs(images, folders, job, pool, runtime.processes, "dense CRF")


def write_image_marginals(
    image_file: ImageFile, image_id: str, seeds: Path, folder: Path, config: PSACRFConfig,
    thresholds: Mapping[int, float] = NONE,
) -> None:  # fmt: skip
    """Writes an image's marginals under both exponents."""
    image = np.array(image_file.read())
    seed = calibrated(read_maps(seeds, image_id, image.shape[:2]), thresholds)
    for alpha in config.alphas():
        write_seed(crf_folder(folder, alpha), image_id, seed_crf(image, seed, alpha, config), config.format, stride=1)


class MarginalFiles:
    """The marginals of an image set; gives image and marginals by index."""

    def __init__(self, images: ImageSet, folder: Path, config: PSACRFConfig, made_by: str) -> None:
        """Names the folders.

        Args:
            made_by: the command that writes the marginals, for the message.

        Raises:
            UserError: images have no marginals, or a folder holds files of another kind.
        """
        self.images = images
        self.folders = [crf_folder(folder, alpha) for alpha in config.alphas()]
        for path in self.folders:
            require_maps(images, path, made_by, MARGINALS)

    def files(self) -> list[Path]:
        """All files of the image set."""
        return [find_seed(folder, image_id) for folder in self.folders for image_id in self.images.ids]

    def load(self, index: int) -> tuple[Image.Image, Marginals]:
        """RGB image and marginals.

        Raises:
            UserError: image and marginals do not belong together.
        """
        image = self.images.load_image(index)
        image_id = self.images.ids[index]
        low, high = (read_maps(folder, image_id, image.size[::-1]) for folder in self.folders)
        if not low or low.keys() != high.keys():
            raise UserError(
                f"the marginals of {image_id} in {self.folders[0]} and {self.folders[1]} are of different classes: "
                f"{list(low)} and {list(high)}"
            )
        return image, Marginals(*(np.stack(list(maps.values())) for maps in (low, high)))
