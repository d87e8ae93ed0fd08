"""Localisation scores that do not depend on one threshold (Choe et al., CVPR 2020, section 4.1).

MaxBoxAcc is the share of images whose box has an IoU of at least 0.5 with a true box, the box around the largest region
of the true class's map, at the best threshold. MaxBoxAccV2 takes the best of the boxes around all regions, and is the
mean over IoUs of 0.3, 0.5 and 0.7, each at its own best threshold. Chosen on the scored images the thresholds flatter;
with a threshold of another split the same shares are ``box_acc`` and ``box_acc_v2``.
"""

from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np

from common.score.bootstrap import draws, interval
from common.score.boxes import THRESHOLDS, background, grey_map
from methods.crt.boxes import NO_BOX, overlap

OVERLAPS = (0.3, 0.5, 0.7)
LARGEST, ANY = range(2)  # the boxes of which a threshold's IoU is taken


class Sweep(NamedTuple):
    """The boxes of an image at every threshold.

    Attributes:
        ious: largest IoU with a true box, of the box around the largest region and of all boxes, float64 (2, T).
        boxes: the boxes around the largest regions, int64 (T, 4).
    """

    ious: np.ndarray
    boxes: np.ndarray


def box_sweep(cam: np.ndarray, side: int, true_boxes: np.ndarray) -> Sweep:
    """The boxes of a map at every threshold.

    Args:
        cam: float32 (h, w), of the true class.
        side: of the square that boxes are in.
        true_boxes: (n, 4).
    """
    grey = grey_map(cam, side)
    found = np.zeros((2, len(THRESHOLDS)))
    chosen = np.tile(NO_BOX, (len(THRESHOLDS), 1))
    for index, threshold in enumerate(THRESHOLDS):
        # The kind of threshold of `methods.crt.boxes.cam_box`; a constant map has no contour.
        inside = cv2.threshold(grey, background(grey, threshold), 255, cv2.THRESH_BINARY)[1]
        contours = cv2.findContours(inside, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        if not contours:
            found[:, index] = overlap(np.array(NO_BOX), true_boxes).iou.max()
            continue
        boxes = [_box(contour) for contour in contours]
        ious = [overlap(box, true_boxes).iou.max() for box in boxes]
        largest = max(range(len(contours)), key=lambda number: cv2.contourArea(contours[number]))
        found[:, index] = ious[largest], max(ious)
        chosen[index] = boxes[largest]
    return Sweep(found, chosen)


def _box(contour: np.ndarray) -> np.ndarray:
    x, y, width, height = cv2.boundingRect(contour)
    return np.array([x, y, x + width, y + height])


def max_box_scores(sweeps: np.ndarray) -> dict[str, float]:
    """MaxBoxAcc and MaxBoxAccV2 in percent, the parts of the second, and the thresholds that give them.

    Args:
        sweeps: IoUs of every image, (images, 2, thresholds); see `Sweep`.
    """
    single = 100 * (sweeps[:, LARGEST] >= 0.5).mean(axis=0)
    parts = {level: 100 * (sweeps[:, ANY] >= level).mean(axis=0) for level in OVERLAPS}
    found = {"max_box_acc": float(single.max()), "max_box_threshold": float(THRESHOLDS[single.argmax()])}
    found["max_box_acc_v2"] = float(np.mean([part.max() for part in parts.values()]))
    for level, part in parts.items():
        found[f"max_box_acc_v2_{100 * level:.0f}"] = float(part.max())
        found[f"max_box_threshold_v2_{100 * level:.0f}"] = float(THRESHOLDS[part.argmax()])
    return found


def tuned_hits(sweeps: np.ndarray, tuned: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Which images are right at the thresholds that another split gave: shares of 1, (images,) each.

    Args:
        tuned: `max_box_scores` of the other split.
    """
    single = sweeps[:, LARGEST, _index(tuned["max_box_threshold"])] >= 0.5
    parts = [sweeps[:, ANY, _index(tuned[f"max_box_threshold_v2_{100 * level:.0f}"])] >= level for level in OVERLAPS]
    return {"box_acc": single.astype(float), "box_acc_v2": np.mean(parts, axis=0)}


def _index(threshold: float) -> int:
    return int(np.abs(THRESHOLDS - threshold).argmin())


def hit_intervals(hits: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """95 % intervals, percent, of the mean over images of each score, (images,) of 0 to 1."""
    stacked = np.stack([np.asarray(values, dtype=float) for values in hits.values()], axis=1)
    drawn = 100 * np.concatenate([weights @ stacked for weights in draws(len(stacked))]) / len(stacked)
    ends = (interval(float("nan"), column)[1:] for column in drawn.T)
    return {name: list(own) for name, own in zip(hits, ends, strict=True)}
