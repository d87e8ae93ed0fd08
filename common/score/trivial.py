"""Scores of the two trivial predictions, from the true masks alone: bounds that every prediction must beat."""

import numpy as np

from common.score.counts import scores_of

TRIVIAL = {"background": "all background", "first_label": "every pixel the image's first class"}


class TrivialCounts:
    """Counts of predictions that need no network: background everywhere, or the first class of an image's mask."""

    def __init__(self, num_labels: int) -> None:
        """Starts from zero; ``num_labels`` is K, background included."""
        self.truth = np.zeros(num_labels, dtype=np.int64)
        self._predicted = np.zeros(num_labels, dtype=np.int64)
        self._correct = np.zeros(num_labels, dtype=np.int64)

    def add(self, truth: np.ndarray) -> None:
        """Counts one image, of which so many pixels are truly each label: int64 (K,)."""
        classes = np.flatnonzero(truth[1:])
        label = int(classes[0]) + 1 if len(classes) else 0
        self.truth += truth
        self._predicted[label] += truth.sum()
        self._correct[label] += truth[label]

    def __add__(self, other: "TrivialCounts") -> "TrivialCounts":
        total = TrivialCounts(len(self.truth))
        total.truth = self.truth + other.truth
        total._predicted = self._predicted + other._predicted
        total._correct = self._correct + other._correct
        return total

    def scores(self) -> dict[str, float]:
        """mIoU, percent, of both predictions under their names in `TRIVIAL`."""
        correct, predicted = (np.zeros_like(self.truth) for _ in range(2))
        correct[0], predicted[0] = self.truth[0], self.truth.sum()
        background = scores_of(correct, predicted, self.truth)
        first_label = scores_of(self._correct, self._predicted, self.truth)
        return {"background": float(background.miou), "first_label": float(first_label.miou)}
