"""What is made of a folder of seeds: pictures (``--vis``) and dense-CRF refinements (``--crf --alphas``)."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.crf import crf_done, crf_pool, refine_to_files
from common.data.dataset import ImageSet
from common.dist import Processes
from common.infer import InferConfig
from common.runtime import usable_workers
from common.seeds import read_seed, seed_path
from common.visual import save_overlay


def draw_seeds(images: ImageSet, seeds: Path, folder: Path, config: InferConfig, processes: Processes) -> None:
    """Draws the first ``infer.vis_limit`` images with the CAMs of their classes beside them, ``<folder>/<id>.png``."""
    share = processes.shard(range(min(len(images), config.vis_limit)))
    for index in tqdm(share, desc="pictures", disable=not processes.is_main, leave=False):
        image_id = images.ids[index]
        pixels = np.array(images.load_image(index))
        save_overlay(folder / f"{image_id}.png", pixels, read_seed(seed_path(seeds, image_id)), images.classes)
    processes.barrier()
    if processes.is_main:
        print(f"{folder}: pictures of {min(len(images), config.vis_limit)} images")


def refine_by_crf(images: ImageSet, seeds: Path, folder: Path, config: InferConfig, processes: Processes) -> None:
    """Writes the dense-CRF marginals of every seed, ``<folder>/<alpha>/<id>.npy``.

    Refined files that are newer than their seed are kept, so that an interrupted run goes on where it stopped.
    """
    share = processes.shard(list({image_id: index for index, image_id in enumerate(images.ids)}.values()))
    with crf_pool(usable_workers(config.num_workers)) as pool:
        for index in tqdm(share, desc="dense CRF", disable=not processes.is_main, leave=False):
            image_id = images.ids[index]
            path = seed_path(seeds, image_id)
            if not crf_done(folder, config.crf_alphas, image_id, path):
                alphas = config.crf_alphas
                pool.submit(refine_to_files, images.images[index], image_id, read_seed(path), alphas, folder)
    processes.barrier()
    if processes.is_main:
        print(
            f"{folder}: CRF of {len(set(images.ids))} images, background exponents "
            f"{', '.join(map(str, config.crf_alphas))}"
        )
