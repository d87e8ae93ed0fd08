"""Recall by the size of objects.

An object is all pixels of a class in an image, as masks of labels tell no instances apart; its size is its share of the
image's labelled pixels. The smallest, middle and largest third of a data set's objects are the terciles.
"""

from dataclasses import dataclass

import numpy as np

from common.score.bootstrap import Interval, draws, interval
from common.score.image_counts import REGION, PerImage

TERCILES = ("small", "medium", "large")


@dataclass(frozen=True)
class SizeScore:
    """Recall of a tercile: the mean over its objects of the found share of their pixels, in percent.

    Attributes:
        objects: how many there are.
        largest: size of the largest, in percent of its image.
    """

    objects: int
    largest: float
    recall: Interval


def size_scores(counts: PerImage) -> dict[str, SizeScore]:
    """Recall by tercile; a tercile without objects is left out."""
    truth = counts.truth[REGION]
    row, label = np.nonzero(truth[:, 1:])
    label += 1
    size = 100 * truth[row, label] / truth[row].sum(axis=1)
    recall = 100 * counts.correct[REGION][row, label] / truth[row, label]
    edges = np.quantile(size, [1 / 3, 2 / 3]) if len(size) else np.zeros(2)
    tercile = np.searchsorted(edges, size)  # a size equal to an edge belongs below it
    sums, numbers = np.zeros((2, len(counts.ids), len(TERCILES)))
    np.add.at(sums, (row, tercile), recall)
    np.add.at(numbers, (row, tercile), 1)
    wide = np.concatenate([sums, numbers], axis=1)
    drawn = np.concatenate([weights @ wide for weights in draws(len(counts.ids))])
    found = {}
    for index, name in enumerate(TERCILES):
        own = tercile == index
        if own.any():
            number = drawn[:, len(TERCILES) + index]
            resampled = drawn[:, index] / np.where(number > 0, number, np.nan)
            found[name] = SizeScore(int(own.sum()), float(size[own].max()), interval(recall[own].mean(), resampled))
    return found
