"""Pseudo masks by a dense CRF of the seeds alone: configuration, and the job of one image."""

from pathlib import Path

import numpy as np

from common.crf.dense import seed_crf
from common.data.dataset import read_image
from common.data.masks import write_mask
from common.masks.from_seeds import read_maps
from common.masks.options import SeedCRFConfig
from common.run.errors import UserError


def write_crf_mask(
    image_path: Path, image_id: str, seeds: Path, file: Path, config: SeedCRFConfig, num_classes: int
) -> None:
    """Writes an image's mask: the most probable label after the CRF, the lowest of equal ones.

    Raises:
        UserError: the seed is missing, damaged, not of the image's size, or of other classes.
    """
    image = np.array(read_image(image_path))
    seed = read_maps(seeds, image_id, image.shape[:2])
    if seed and not 0 <= min(seed) <= max(seed) < num_classes:
        raise UserError(f"the seed of {image_id} in {seeds} has classes {list(seed)} of {num_classes}")
    marginals = seed_crf(image, seed, config.alpha, config)
    labels = np.array(list(marginals), dtype=np.uint8)  # n
    write_mask(file, labels[np.stack(list(marginals.values())).argmax(axis=0)])  # n H W -> H W
