"""Boundary pixels of regions, for boundary IoU (Cheng et al., CVPR 2021, section 4).

The boundary of a region are its pixels within a distance of its contour: the region without its erosion by a square.
The image's border belongs to the contour. Eroding and comparing with a threshold may be exchanged, so a minimum filter
over numbers of thresholds gives the boundary at every threshold at once.
"""

import math

import cv2
import numpy as np

RATIO = 0.02  # of the image's diagonal: the distance of the paper


def boundary_distance(shape: tuple[int, int]) -> int:
    """How many pixels of a region count as its boundary, inwards from the contour; at least 1."""
    return max(1, round(RATIO * math.hypot(*shape)))


def boundary_mask(region: np.ndarray, distance: int) -> np.ndarray:
    """The boundary of a region, unsigned (H, W) of 0 and the type's highest value, in the same form."""
    return region & ~_eroded(region, distance)


def boundary_counts(
    levels: np.ndarray, boundary: np.ndarray, distance: int, thresholds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Boundary pixels of a predicted region at every threshold; at threshold i it has the pixels of levels above i.

    Args:
        levels: 0 to ``thresholds``, uint8 or uint16 (H, W).
        boundary: of the true region, as `boundary_mask` gives it, in the type of ``levels``.

    Returns:
        Those within the true boundary, and all: int64 (``thresholds``,) each.
    """
    inner = _eroded(levels, distance)
    predicted = _histogram(levels, thresholds) - _histogram(inner, thresholds)
    x, y, width, height = cv2.boundingRect(boundary) if boundary.dtype == np.uint8 else (0, 0, *boundary.shape[::-1])
    part = slice(y, y + height), slice(x, x + width)
    within = boundary[part]
    if not within.size:
        return np.zeros(thresholds, dtype=np.int64), _above(predicted)
    correct = _histogram(levels[part] & within, thresholds) - _histogram(inner[part] & within, thresholds)
    return _above(correct), _above(predicted)


def _eroded(levels: np.ndarray, distance: int) -> np.ndarray:
    """The minimum over a square around each pixel; outside the image it is 0."""
    square = np.ones((2 * distance + 1, 2 * distance + 1), dtype=np.uint8)
    return cv2.erode(levels, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)


def _histogram(levels: np.ndarray, thresholds: int) -> np.ndarray:
    """Pixels of each level, int64 (thresholds + 1,)."""
    if levels.dtype == np.uint8 and levels.size < 1 << 24:  # its float32 counts are exact up to there
        counts = cv2.calcHist([np.ascontiguousarray(levels)], [0], None, [256], [0, 256]).ravel()
        return counts[: thresholds + 1].astype(np.int64)
    return np.bincount(levels.ravel(), minlength=thresholds + 1)


def _above(histogram: np.ndarray) -> np.ndarray:
    """Pixels above each threshold, of pixels at each level."""
    return np.cumsum(histogram[::-1])[::-1][1:]
