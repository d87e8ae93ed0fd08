"""The dense CRF of one image's label probabilities, as a job for `common.run.pool.WorkerPool`.

It is separate from `common.masks.network`, as every process of the pool imports this module: it needs few others.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from common.crf.dense import dense_crf
from common.crf.options import CRFConfig
from common.data.dataset import read_image
from common.data.masks import write_mask

ImageFilter = Callable[[np.ndarray], np.ndarray]


def refine_mask(
    image_path: Path, mask_path: Path, probabilities: np.ndarray, config: CRFConfig, crf_image: ImageFilter | None
) -> None:
    """Writes the labels after the dense CRF as a palette PNG.

    Args:
        probabilities: of all labels, background first, float32 (C, H, W).
        crf_image: makes the CRF's input, uint8 RGB (H, W, 3), from the image; None: the image itself.
    """
    image = np.array(read_image(image_path))
    marginals = dense_crf(crf_image(image) if crf_image else image, probabilities, config)
    write_mask(mask_path, marginals.argmax(axis=0))
