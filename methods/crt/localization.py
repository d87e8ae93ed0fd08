"""Scores of weakly supervised object localisation: shares of right classes and boxes, and reasons of wrong boxes."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from common.score.boxes import HITS
from methods.crt.boxes import overlap

TOP = 5
# Outcomes of the first class and its box, one for each image (reference: get_badcase_detail).
OUTCOMES = ("right", "class", "multi", "part", "more", "wrong")
PERCENTAGES = HITS


class Located(NamedTuple):
    """The classes and boxes found in an image, and the true ones.

    Attributes:
        top: int64 (k,), the classes of the k = `TOP` largest logits (of all, if there are fewer), in descending order.
        top_boxes: int64 (k, 4), the box of each.
        label: the true class.
        known_box: int64 (4,), the box of the true class.
        true_boxes: int64 (n, 4), the boxes of the objects.
    """

    top: np.ndarray
    top_boxes: np.ndarray
    label: int
    known_box: np.ndarray
    true_boxes: np.ndarray


class Verdict(NamedTuple):
    """Which parts of an image's result are right.

    Attributes:
        cls_top1: whether the first class is the true class.
        cls_top5: whether one of the first five is.
        loc_top1: whether the first class is true and its box has an IoU above 0.5 with a true box.
        loc_top5: whether one of the first five is true and its box has such an IoU.
        gt_known: whether the true class's box has an IoU of at least 0.5.
        iou: of the true class's box with the true box that it fits best.
        outcome: one of `OUTCOMES`.
    """

    cls_top1: bool
    cls_top5: bool
    loc_top1: bool
    loc_top5: bool
    gt_known: bool
    iou: float
    outcome: str


def judge(found: Located) -> Verdict:
    """The verdict on an image."""
    hits = found.top == found.label
    fits = np.array([overlap(box, found.true_boxes).iou.max() > 0.5 for box in found.top_boxes])
    iou = float(overlap(found.known_box, found.true_boxes).iou.max())
    return Verdict(
        bool(hits[0]), bool(hits.any()), bool((hits & fits)[0]), bool((hits & fits).any()), iou >= 0.5, iou,
        _outcome(found.top_boxes[0], found.true_boxes) if hits[0] else "class",
    )  # fmt: skip


def _outcome(box: np.ndarray, true_boxes: np.ndarray) -> str:
    """The outcome of the box of a right class.

    ``multi``: it covers more than 0.3 of several objects; ``part``: more than half of it lies within the object;
    ``more``: it covers at least 0.7 of the object. For the last two, the object is the one of the largest IoU.
    """
    iou, iog, iob = overlap(box, true_boxes)
    best = int(iou.argmax())
    if iou[best] > 0.5:
        return "right"
    if (iog > 0.3).sum() > 1:
        return "multi"
    if iob[best] > 0.5:
        return "part"
    return "more" if iog[best] >= 0.7 else "wrong"


def scores(verdicts: Iterable[Verdict]) -> dict[str, float]:
    """Percentages of the images by `PERCENTAGES`, and by ``top1_OUTCOME`` for each of `OUTCOMES`, which add up to 100.

    The paper's table calls Loc@1 and Loc@5, here ``loc_top1`` and ``loc_top5``, Top-1 and Top-5.
    """
    verdicts = list(verdicts)
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    found = {name: sum(getattr(verdict, name) for verdict in verdicts) for name in PERCENTAGES}
    found |= {f"top1_{name}": outcomes[name] for name in OUTCOMES}
    return {name: 100 * count / len(verdicts) for name, count in found.items()}
