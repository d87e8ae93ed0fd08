"""Pictures of seeds (``--vis``) and their dense-CRF refinements (``--crf --alphas``)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.crf.dense import crf_done, crf_pool, refine_to_files
from common.crf.options import crf_folder
from common.data.dataset import ImageSet
from common.data.outputs import StampedFolder, write_by_jobs
from common.data.seeds import FORMATS, find_seed, read_seed
from common.data.stamp import MARGINALS, seed_settings, stamp_of
from common.run.device import Runtime
from common.run.pool import usable_workers
from common.run.processes import Processes
from common.run.progress import progress
from common.run.script import Setup
from common.seeds.options import InferConfig
from common.visual import save_overlay


@dataclass(frozen=True)
class CRFFolders:
    """Folders of the CRF's marginals of seeds, one for each background exponent: ``<path>/<alpha>/<id>``.

    Attributes:
        path: their common folder.
        alphas: background exponents.
        seeds: folder of the seeds.
        format: of the files, npy or npz.
        content: plural noun for the files.
    """

    path: Path
    alphas: Sequence[int]
    seeds: Path
    format: str = "npy"
    content: str = "CRF results"

    def is_done(self, image_id: str) -> bool:
        """Whether an image has all its files, none of them older than its seed."""
        return crf_done(self.path, self.alphas, image_id, find_seed(self.seeds, image_id), self.format)

    def __str__(self) -> str:
        return f"{self.path}, background exponents {', '.join(map(str, self.alphas))}"


def draw_seeds(images: ImageSet, seeds: Path, folder: Path, config: InferConfig, processes: Processes) -> None:
    """Draws the first ``infer.vis_limit`` images with the CAMs of their classes beside them, ``<folder>/<id>.png``."""
    share = processes.shard(range(min(len(images), config.vis_limit)))
    for index in progress(share, "pictures", processes.is_main):
        image_id = images.ids[index]
        pixels = np.array(images.load_image(index))
        save_overlay(folder / f"{image_id}.png", pixels, read_seed(find_seed(seeds, image_id)), images.classes)
    processes.barrier()
    processes.say(f"{folder}: pictures of {min(len(images), config.vis_limit)} images")


def open_crf_folders(
    images: ImageSet, seeds: Path, folder: Path, alphas: Sequence[int], settings: dict[str, Any], method: str,
    runtime: Runtime, overwrite: bool,
) -> None:  # fmt: skip
    """Opens the folders of the marginals of seeds, one for each background exponent.

    Args:
        settings: of the CRF, where they are not the default ones.

    Raises:
        UserError: as `StampedFolder`.
    """
    for alpha in alphas:
        stamp = stamp_of(MARGINALS, method, {**seed_settings(seeds), "alpha": alpha, **settings}, images, seeds)
        StampedFolder(crf_folder(folder, alpha), stamp, FORMATS, runtime, overwrite)


def refine_by_crf(images: ImageSet, seeds: Path, folder: Path, config: InferConfig, setup: Setup) -> None:
    """Writes the dense-CRF marginals of every seed, ``<folder>/<alpha>/<id>.npy``.

    Refined files that are newer than their seed are kept, so that an interrupted run resumes where it stopped.

    Raises:
        UserError: there are marginals of other settings, and not ``--overwrite``.
    """
    open_crf_folders(images, seeds, folder, config.crf_alphas, {}, setup.method, setup.runtime, setup.args.overwrite)

    def job(index: int) -> tuple[Any, ...]:
        seed = read_seed(find_seed(seeds, images.ids[index]))
        return refine_to_files, images.file(index), images.ids[index], seed, config.crf_alphas, folder

    folders = CRFFolders(folder, config.crf_alphas, seeds)
    write_by_jobs(images, folders, job, crf_pool(usable_workers(config.num_workers)), setup.processes, "dense CRF")
