"""Boundary pixels of regions, for boundary IoU (Cheng et al., CVPR 2021, section 4).

The boundary of a region are its pixels within a distance of its contour: the region without its erosion by a square.
The image's border belongs to the contour. Eroding and comparing with a threshold may be exchanged, so a minimum filter
over numbers of thresholds gives the boundary at every threshold at once.
"""

import math

import cv2
import numpy as np

from common.data.classes import IGNORE_LABEL
from common.score.bins import JointHistogram, above
from common.score.counts import ImageSweep

RATIO = 0.02  # of the image's diagonal: the distance of the paper


def boundary_distance(shape: tuple[int, ...]) -> int:
    """How many pixels of a region count as its boundary, inwards from the contour; at least 1."""
    return max(1, round(RATIO * math.hypot(*shape)))


def boundaries_of_seed(
    gt: np.ndarray, columns: np.ndarray, sweep: ImageSweep, areas: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boundary pixels of the truth, of the prediction at each of n thresholds, and of both: (m,), (n, m), (n, m).

    Args:
        gt: true labels, uint8 (H, W).
        columns: each pixel's true label as a number below m: the seed's classes come first, then background, then
            others; m where it is ignored; uint8 (H, W).
        sweep: the image in a `SweepCounts`.
        areas: predicted pixels of each label, (n, m).
    """
    distance = boundary_distance(gt.shape)
    (count, num_labels), num_keys = areas.shape, len(sweep.keys)
    dtype = np.min_scalar_type(count).type
    valid = gt != IGNORE_LABEL
    bins = np.zeros(gt.shape, dtype) if sweep.bins is None else sweep.bins * valid
    winner = np.zeros(gt.shape, np.uint8) if sweep.winner is None else sweep.winner
    # Numbers of thresholds at which the whole square is predicted as the pixel's own label, of classes and background.
    inner = _eroded(bins, distance)
    if sweep.winner is not None:
        inner *= ~_edge(winner, distance)
    outer = _eroded((dtype(count) - bins) * valid, distance)  # background at threshold i: at most i below the value

    edge = _edge(gt, distance) & valid
    is_right, is_background = edge & (columns == winner), edge & (columns == num_keys)
    wide = np.min_scalar_type(2 * num_labels).type
    groups = edge * (columns + np.uint8(1) + (is_right | is_background) * wide(num_labels))
    by_truth = JointHistogram(groups, 2 * num_labels + 1, count + 1)(bins)[1:].reshape(2, num_labels, count + 1)
    classes = max(num_keys, 1)  # without any, all of it is background
    by_class = JointHistogram(winner + is_right * wide(classes), 2 * classes, count + 1)(inner)
    by_class = by_class.reshape(2, classes, count + 1)[:, :num_keys]
    of_background = JointHistogram(is_background, 2, count + 1)(outer)
    # Inside the prediction; on the truth's boundary and predicted as the label, less what of it is inside.
    inside, correct = np.zeros((2, num_labels, count + 1), dtype=np.int64)
    inside[:num_keys], correct[:num_keys] = by_class.sum(axis=0), by_truth[1, :num_keys] - by_class[1]
    inside[num_keys] = of_background.sum(axis=0)
    correct[num_keys] = by_truth[1, num_keys, ::-1] - of_background[1]
    of_inside, of_both = above(inside), above(correct)
    for counts in (of_inside, of_both):  # background grows as the classes shrink
        counts[:, num_keys] = counts[::-1, num_keys].copy()
    return by_truth.sum(axis=(0, 2)), areas - of_inside, of_both


def boundaries_of_labels(gt: np.ndarray, labels: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Boundary pixels of the truth, of predicted labels, and of both: int64 (3, m).

    Args:
        gt: true labels, uint8 (H, W), 255 = ignore.
        labels: those to count, (m,).
        prediction: labels, integer (H, W), 255 = none.
    """
    distance = boundary_distance(gt.shape)
    predicted = np.where(gt == IGNORE_LABEL, np.uint8(IGNORE_LABEL), prediction.astype(np.uint8))
    edges = _edge(gt, distance), _edge(predicted, distance)
    both = edges[0] & edges[1] & (gt == predicted)
    parts = (gt, edges[0]), (predicted, edges[1]), (gt, both)
    return np.stack([JointHistogram(part, 2, 256)(values)[1, labels] for values, part in parts])


def _eroded(levels: np.ndarray, distance: int) -> np.ndarray:
    """The minimum over a square around each pixel, unsigned (H, W); outside the image it is 0."""
    square = np.ones((2 * distance + 1, 2 * distance + 1), dtype=np.uint8)
    return cv2.erode(levels, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)


def _edge(labels: np.ndarray, distance: int) -> np.ndarray:
    """Whether a square around a pixel holds other labels or reaches beyond the image, bool (H, W).

    It does where one of the corners between its pixels lies between different labels: one filter for all labels.
    """
    corners = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((2, 2), dtype=np.uint8))  # to the left and above
    corners[0] = corners[:, 0] = 1
    square = np.ones((2 * distance, 2 * distance), dtype=np.uint8)
    anchor = (distance - 1, distance - 1)
    return cv2.dilate(corners, square, anchor=anchor, borderType=cv2.BORDER_CONSTANT, borderValue=1) > 0
