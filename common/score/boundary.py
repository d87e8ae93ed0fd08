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


def eroded(levels: np.ndarray, distance: int) -> np.ndarray:
    """The minimum over a square around each pixel, unsigned (H, W); outside the image it is 0."""
    square = np.ones((2 * distance + 1, 2 * distance + 1), dtype=np.uint8)
    return cv2.erode(levels, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)


def boundary_mask(region: np.ndarray, distance: int) -> np.ndarray:
    """The boundary of a region: 0 and 255, uint8 (H, W), as the region itself."""
    x, y, width, height = cv2.boundingRect(region)
    part = slice(y, y + height), slice(x, x + width)
    found = np.zeros_like(region)
    if width:
        found[part] = region[part] & ~eroded(np.ascontiguousarray(region[part]), distance)
    return found


def joint_histogram(levels: np.ndarray, groups: np.ndarray, num_groups: int, num_levels: int) -> np.ndarray:
    """Pixels by group and level, but for level 0, which is not counted.

    Args:
        levels: 0 to ``num_levels`` - 1, uint8 or uint16 (H, W).
        groups: uint8 (H, W); pixels of ``num_groups`` and more are not counted.

    Returns:
        int64 (num_groups, num_levels).
    """
    if levels.dtype != np.uint8 or levels.size >= 1 << 24:  # up to there the counts of float32 are exact
        counted = (levels > 0) & (groups < num_groups)
        codes = groups[counted].astype(np.int64) * num_levels + levels[counted]
        return np.bincount(codes, minlength=num_groups * num_levels).reshape(num_groups, num_levels)
    groups = groups | equal_mask(levels, 0)  # out of range: skipped
    images = [np.ascontiguousarray(levels), groups]
    counts = cv2.calcHist(images, [0, 1], None, [256, num_groups], [0, 256, 0, num_groups])
    return counts.reshape(256, num_groups)[:num_levels].T.astype(np.int64)


def equal_mask(values: np.ndarray, value: int) -> np.ndarray:
    """255 where values (H, W) are equal to a value, else 0."""
    return (values == value).view(np.uint8) * np.uint8(255)
