"""Pixel average precision of CAMs: how well the values of a class rank its pixels, free of any threshold.

Values are rounded to `LEVELS` levels of [0, 1], and pixels of one level count as ties. A class without a map has the
value 0, as everywhere. Pooled over all pairs of image and labelled class this is PxAP (Choe et al., CVPR 2020, eq. 4).
"""

from collections.abc import Mapping

import cv2
import numpy as np

from common.score.bins import JointHistogram

LEVELS = 256
ONE = np.float32(1).view(np.uint32)


def level_counts(cam: np.ndarray, histogram: JointHistogram, label: int) -> np.ndarray:
    """Pixels of each level of a class's map.

    Args:
        cam: float32 (H, W).
        histogram: by the number of the true label, ignored pixels last.
        label: the number of the class's.

    Returns:
        int32 (2, LEVELS): all pixels with a true label, and the ones of the class.
    """
    if cam.view(np.uint32).max() > ONE:  # as integers, floats from 0 to 1 are in order, and negative ones above
        cam = np.clip(cam, 0, 1)
    levels = cv2.convertScaleAbs(cam, alpha=LEVELS - 1)  # scaled and rounded to the nearest (half to even) in one pass
    counts = histogram(levels)
    return np.array([counts[:-1].sum(axis=0), counts[label]], dtype=np.int32)


def average_precision(counts: np.ndarray) -> np.ndarray:
    """Sum over the levels, from the highest, of the precision so far times the recall that the level adds.

    Args:
        counts: (..., 2, LEVELS), as of `level_counts`.

    Returns:
        Percent, float64 (...); NaN where the class has no pixel.
    """
    found = np.cumsum(counts[..., ::-1], axis=-1, dtype=np.float64)
    chosen, right = found[..., 0, :], found[..., 1, :]
    added = counts[..., 1, ::-1] / np.where(right[..., -1:] > 0, right[..., -1:], np.nan)
    return 100 * (added * (right / np.maximum(chosen, 1))).sum(axis=-1)


def class_levels(
    levels: Mapping[int, np.ndarray], rows: Mapping[int, np.ndarray], truth: np.ndarray, key: int, weights: np.ndarray
) -> np.ndarray:
    """Pixels of each level of a class over weighted images.

    Args:
        levels: by class, the `level_counts` of the images that have a map, (images, 2, LEVELS).
        rows: by class, the numbers of these images.
        truth: pixels of each label, background first, (N, K).
        key: the class.
        weights: of the images, (R, N).

    Returns:
        float64 (R, 2, LEVELS).
    """
    own = levels.get(key, np.zeros((0, 2, LEVELS)))
    mapped = rows.get(key, np.zeros(0, dtype=np.int64))
    total = (weights[:, mapped] @ own.reshape(-1, 2 * LEVELS).astype(np.float64)).reshape(-1, 2, LEVELS)
    others = np.ones(len(truth))
    others[mapped] = 0  # images without a map: all of their pixels have the value 0
    total[:, 0, 0] += weights @ (truth.sum(axis=1) * others)
    total[:, 1, 0] += weights @ (truth[:, key + 1] * others)
    return total
