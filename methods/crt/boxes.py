"""Boxes of class activation maps, true boxes in the network's input, and the overlap of boxes.

A box is x1, y1, x2, y2 in pixels of the square that images are brought to. As in the reference, a side has x2 - x1 + 1
pixels when boxes are compared, although x2 and y2 of a map's box are already one past the last pixel.
"""

from typing import NamedTuple

import cv2
import numpy as np

from common.score.boxes import background, grey_map

NO_BOX = (0, 0, 1, 1)  # of a map without a contour


def cam_box(cam: np.ndarray, side: int, threshold: float) -> np.ndarray:
    """The box around the largest region of a map (reference: TS-CAM's resize_cam and get_bboxes).

    Args:
        cam: float32 (h, w), of one class.
        side: of the square.
        threshold: share of the map's largest value up to which a pixel is background, after the map was stretched to
            0 ... 255 and truncated.

    Returns:
        int64 (4,); `NO_BOX` if no value stands out, as in a constant map.
    """
    grey = grey_map(cam, side)
    inside = cv2.threshold(grey, background(grey, threshold), 255, cv2.THRESH_TOZERO)[1]
    contours = cv2.findContours(inside, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not contours:
        return np.array(NO_BOX)
    x, y, width, height = cv2.boundingRect(max(contours, key=cv2.contourArea))
    return np.array([x, y, x + width, y + height])


def true_box(box: np.ndarray, size: tuple[int, int], side: int) -> np.ndarray:
    """A box of the data set in the pixels of the square (reference: TS-CAM's data sets).

    Args:
        box: x, y, width, height in pixels of the image; fractions are cut off.
        size: (width, height) of the image.

    Returns:
        int64 (4,) within 0 ... side - 1.
    """
    x, y, width, height = (int(value) for value in box)
    corners = np.array([x, y, x + width, y + height]) / np.array([*size, *size]) * side
    return corners.clip(0, side - 1).astype(np.int64)


class Overlap(NamedTuple):
    """The overlap of a box with each of n others: float64 (n,) each.

    Attributes:
        iou: intersection over union.
        iog: intersection over the other box, the true one.
        iob: intersection over the box itself.
    """

    iou: np.ndarray
    iog: np.ndarray
    iob: np.ndarray


def overlap(box: np.ndarray, others: np.ndarray) -> Overlap:
    """Compares a box (4,) with others (n, 4); sides are counted as the module says."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]) + 1
    common = sides.clip(min=0).prod(axis=1).astype(np.float64)
    own = (box[2:] - box[:2] + 1).prod()
    theirs = (others[:, 2:] - others[:, :2] + 1).prod(axis=1)
    return Overlap(common / (own + theirs - common), common / theirs, common / own)
