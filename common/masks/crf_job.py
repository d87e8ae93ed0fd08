"""The dense CRF of one image to a mask file, as jobs for `common.run.pool.WorkerPool`.

Every process of a pool imports this module, so it needs few others: `common.masks.network` is not among them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from common.crf.dense import dense_crf, seed_crf
from common.crf.options import CRFConfig
from common.data.images import ImageFile
from common.data.masks import write_mask
from common.masks.from_seeds import read_class_maps
from common.masks.options import SeedCRFConfig

ImageFilter = Callable[[np.ndarray], np.ndarray]


def refine_mask(
    image_file: ImageFile, mask_path: Path, probabilities: np.ndarray, config: CRFConfig, crf_image: ImageFilter | None
) -> None:
    """Writes the labels after the dense CRF of a network's probabilities as a palette PNG.

    Args:
        probabilities: of all labels, background first, float32 (C, H, W).
        crf_image: makes the CRF's input, uint8 RGB (H, W, 3), from the image; None: the image itself.
    """
    image = np.array(image_file.read())
    marginals = dense_crf(crf_image(image) if crf_image else image, probabilities, config)
    write_mask(mask_path, marginals.argmax(axis=0))


def write_crf_mask(
    image_file: ImageFile, image_id: str, seeds: Path, file: Path, config: SeedCRFConfig, num_classes: int,
    thresholds: Mapping[int, float] | None = None,
) -> None:  # fmt: skip
    """Writes the pseudo mask of an image's seed: the most probable label after the CRF, the lowest of equal ones.

    Args:
        seeds: folder of the seeds.
        file: the mask, a palette PNG.
        num_classes: without background.
        thresholds: of classes, by which the seed is calibrated.

    Raises:
        UserError: the seed is missing, damaged, not of the image's size, or of other classes.
    """
    image = np.array(image_file.read())
    seed = read_class_maps(seeds, image_id, image.shape[:2], num_classes, thresholds or {})
    marginals = seed_crf(image, seed, config.alpha, config)
    labels = np.array(list(marginals), dtype=np.uint8)  # n
    write_mask(file, labels[np.stack(list(marginals.values())).argmax(axis=0)])  # n H W -> H W
