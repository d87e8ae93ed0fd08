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
