"""Scores of an evaluation from the counts of its images: over the images as they are, and over bootstrap draws.

A label is present if it occurs in the masks or in the predictions. Means go over the labels that are present; in a
draw, over those of them that the draw has. mIoU alone has all K labels, as in the papers: absent ones count as 0.
"""

from typing import NamedTuple

import numpy as np

from common.score.bootstrap import Interval, draws, interval
from common.score.image_counts import BOUNDARY, REGION, PerImage

# Means by name: the score of a label that is averaged.
MEANS = {
    "mIoU": "IoU", "mIoU_present": "IoU", "mean_precision": "precision", "mean_recall": "recall",
    "boundary_mIoU": "boundary_IoU", "extra": "extra", "missed": "missed",
}  # fmt: skip


class Totals(NamedTuple):
    """Counts over R draws of images: float64 (2, R, K), the first axis as in `PerImage`."""

    truth: np.ndarray
    predicted: np.ndarray
    correct: np.ndarray


def plain_totals(counts: PerImage) -> Totals:
    """The sums over the images themselves, as one draw."""
    sums = (values.sum(axis=1, keepdims=True) for values in (counts.truth, counts.predicted, counts.correct))
    return Totals(*(values.astype(np.float64) for values in sums))


def drawn_totals(counts: PerImage) -> Totals:
    """The sums over each of the bootstrap's draws."""
    stacked = np.concatenate([counts.truth, counts.predicted, counts.correct]).astype(np.float64)  # 6 N K
    wide = np.concatenate(list(stacked), axis=1)  # N 6K
    sums = np.concatenate([weights @ wide for weights in draws(len(counts.ids))])
    parts = np.stack(np.split(sums, len(stacked), axis=1))  # 6 R K
    return Totals(parts[0:2], parts[2:4], parts[4:6])


def label_scores(total: Totals) -> dict[str, np.ndarray]:
    """Scores of each label, in percent: (R, K), NaN where a label has no pixel that counts.

    ``missed`` and ``extra`` are the shares of the union that are false negative and false positive: with IoU they add
    up to 100.
    """
    union = total.truth + total.predicted - total.correct
    iou = _percent(total.correct, union)
    region = union[REGION]
    return {
        "IoU": iou[REGION],
        "precision": _percent(total.correct[REGION], total.predicted[REGION]),
        "recall": _percent(total.correct[REGION], total.truth[REGION]),
        "boundary_IoU": iou[BOUNDARY],
        "missed": _percent(total.truth[REGION] - total.correct[REGION], region),
        "extra": _percent(total.predicted[REGION] - total.correct[REGION], region),
    }


def means(total: Totals, present: np.ndarray) -> dict[str, np.ndarray]:
    """The means of `MEANS` in percent, (R,) each.

    Precision and recall of a present label without predictions or without true pixels are 0, as in the papers' mean.

    Args:
        present: whether a label is present over all images, (K,).
    """
    scores = label_scores(total)
    occurs = (total.truth + total.predicted)[REGION] > 0
    found = {}
    for name, of_label in MEANS.items():
        values = scores[of_label]
        counted = ~np.isnan(values) if of_label == "boundary_IoU" else occurs
        number = np.maximum((counted & present).sum(axis=-1), 1)
        found[name] = np.where(counted & present, np.nan_to_num(values), 0).sum(axis=-1) / number
    found["mIoU"] = found["mIoU"] * (present.sum() / len(present))
    return found


def present_labels(counts: PerImage) -> np.ndarray:
    """Whether each label occurs in the masks or in the predictions, (K,)."""
    return (counts.truth[REGION] + counts.predicted[REGION]).sum(axis=0) > 0


def mean_intervals(counts: PerImage) -> dict[str, Interval]:
    """The means of `MEANS` with their intervals."""
    present = present_labels(counts)
    plain, drawn = (means(total, present) for total in (plain_totals(counts), drawn_totals(counts)))
    return {name: interval(float(value[0]), drawn[name]) for name, value in plain.items()}


def _percent(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return 100 * part / np.where(whole > 0, whole, np.nan)
