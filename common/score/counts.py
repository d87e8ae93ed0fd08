"""Counts behind IoU, precision and recall: int64, summable over images, threads and processes.

`SweepCounts` takes seeds and counts for every background threshold in one pass, `ConfusionCounts` takes label masks.
Both give `Scores`. Labels are 0 for background and class index + 1; 255 in the truth is ignored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from common.data.classes import IGNORE_LABEL
from common.run.errors import UserError
from common.score.bins import ThresholdBins, above

EPSILON = 1e-10  # of the reference's divisions; a label neither present nor predicted counts as IoU 0


class LabelRangeError(UserError):
    """A label or class index that the data set does not have: the wrong data set or class list, not a damaged file."""


@dataclass(frozen=True)
class Scores:
    """Scores of K labels (background first), for one prediction or, with a leading axis, for each threshold.

    Attributes:
        iou: percent, float64 (..., K).
        precision: fraction, float64 (..., K).
        recall: fraction, float64 (..., K).
    """

    iou: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def miou(self) -> np.ndarray:
        """Mean IoU over all K labels, percent (...)."""
        return self.iou.mean(axis=-1)

    @property
    def mean_precision(self) -> np.ndarray:
        """Mean precision over all K labels, fraction (...)."""
        return self.precision.mean(axis=-1)

    @property
    def mean_recall(self) -> np.ndarray:
        """Mean recall over all K labels, fraction (...)."""
        return self.recall.mean(axis=-1)


def scores_of(correct: np.ndarray, predicted: np.ndarray, truth: np.ndarray) -> Scores:
    """Scores from pixel counts as the reference evaluators define them.

    Args:
        correct: pixels of a label that were predicted as it, int64 (..., K).
        predicted: pixels predicted as a label, int64 (..., K).
        truth: pixels of a label, int64 (..., K), or (K,) for all thresholds.
    """
    return Scores(
        iou=100 * (correct / (truth + predicted - correct + EPSILON)),
        precision=correct / (predicted + EPSILON),
        recall=correct / (truth + EPSILON),
    )


class ImageSweep(NamedTuple):
    """One image in a `SweepCounts`.

    Attributes:
        keys: the classes that have a map, ascending.
        bins: number of thresholds below the highest value, unsigned (H, W); None without any map.
        winner: number of the first key that has the highest value, uint8 (H, W); None with fewer than two keys.
        histogram: pixels by the key of the highest value, true label and number of thresholds below,
            int64 (keys, K, n + 1).
        truth: pixels of each label, int64 (K,).
    """

    keys: list[int]
    bins: np.ndarray | None
    winner: np.ndarray | None
    histogram: np.ndarray
    truth: np.ndarray


class SweepCounts:
    """Counts of seeds at every background threshold, in one pass over the images.

    At threshold t a pixel is background unless its highest value is above t (float32 comparison, a tie is background);
    else it is the class of that value, the lower index of equal ones. So only the highest value, its class, and the
    number of thresholds below it matter, and a histogram over (class, true label, number) holds all thresholds.

    Attributes:
        thresholds: float64 (n,), ascending.
        truth: pixels of each label, int64 (K,).
    """

    def __init__(self, num_labels: int, thresholds: Sequence[float] | np.ndarray) -> None:
        """Starts from zero.

        Args:
            num_labels: K, background included.
            thresholds: ascending and not negative (classes outside the image's label have the value 0).

        Raises:
            UserError: the thresholds are not ascending, or negative.
        """
        self.num_labels = num_labels
        self.thresholds = np.asarray(thresholds, dtype=np.float64)
        self._bins = ThresholdBins(self.thresholds.astype(np.float32))
        shape = (num_labels, len(self.thresholds) + 1)
        # Pixels [k, b] whose highest value is label k's and above b thresholds; the part of them that truly is label k.
        # Background has no map: its row is unused in the first, all pixels truly background in the second.
        self._best = np.zeros(shape, dtype=np.int64)
        self._hits = np.zeros(shape, dtype=np.int64)
        self.truth = np.zeros(num_labels, dtype=np.int64)
        self._label_row = _label_rows(num_labels)

    def add(self, seed: Mapping[int, np.ndarray], gt: np.ndarray) -> ImageSweep:
        """Counts one image, and returns what was counted.

        Args:
            seed: {foreground class index: values (H, W)}; compared as float32. Empty: all background.
            gt: true labels, uint8 (H, W), 255 = ignore.

        Returns:
            The image's pixels of each true label, int64 (K,).

        Raises:
            LabelRangeError: a class index or true label outside the data set's.
            UserError: maps of another size than the mask, or with NaN.
        """
        check_mask(gt, self.num_labels)
        keys = sorted(seed)
        check_keys(keys, self.num_labels - 1)
        if not keys:
            labels = np.bincount(gt.ravel(), minlength=256)[: self.num_labels]
            self.truth += labels
            self._hits[0, 0] += labels[0]
            empty = np.zeros((0, self.num_labels, len(self.thresholds) + 1), dtype=np.int64)
            return ImageSweep(keys, None, None, empty, labels)
        best, winner = _first_maximum([_checked_map(seed[key], gt.shape, key) for key in keys])
        rows = self.num_labels + 2
        columns = len(self.thresholds) + 1
        size = len(keys) * rows * columns
        dtype = np.min_scalar_type(size)
        code = (self._label_row * columns).astype(dtype).take(gt, mode="clip")  # H W
        bins = self._bins(best)
        code += bins
        if winner is not None:
            code += winner.astype(dtype) * dtype.type(rows * columns)
        counts = np.bincount(code.ravel(), minlength=size).reshape(len(keys), rows, columns)[:, : self.num_labels]
        truth = counts.sum(axis=(0, 2))
        self.truth += truth
        self._hits[0] += counts[:, 0].sum(axis=0)
        for index, key in enumerate(keys):
            self._best[key + 1] += counts[index].sum(axis=0)
            self._hits[key + 1] += counts[index, key + 1]
        return ImageSweep(keys, bins, winner, counts, truth)

    def __add__(self, other: "SweepCounts") -> "SweepCounts":
        if self.num_labels != other.num_labels or not np.array_equal(self.thresholds, other.thresholds):
            raise ValueError("counts of other labels or thresholds cannot be added")
        total = SweepCounts(self.num_labels, self.thresholds)
        total._best = self._best + other._best
        total._hits = self._hits + other._hits
        total.truth = self.truth + other.truth
        return total

    @property
    def predicted(self) -> np.ndarray:
        """Pixels predicted as each label at each threshold, int64 (n, K)."""
        counts = above(self._best)
        counts[:, 0] = self.truth.sum() - counts[:, 1:].sum(axis=1)
        return counts

    @property
    def correct(self) -> np.ndarray:
        """Pixels predicted as the label that they are, at each threshold, int64 (n, K)."""
        counts = above(self._hits)
        counts[:, 0] = np.cumsum(self._hits[0])[:-1]  # background at threshold i: the value is above at most i
        return counts

    def scores(self) -> Scores:
        """Scores at every threshold: arrays (n, K)."""
        return scores_of(self.correct, self.predicted, self.truth)


class ConfusionCounts:
    """Confusion matrix of label maps.

    Attributes:
        matrix: int64 (K, K + 1): rows are true labels, columns predicted ones; the last column counts pixels without a
            prediction (label 255 in a pseudo mask), which lower the recall and nobody's precision.
    """

    def __init__(self, num_labels: int) -> None:
        """Starts from zero; ``num_labels`` is K, background included."""
        self.num_labels = num_labels
        self.matrix = np.zeros((num_labels, num_labels + 1), dtype=np.int64)
        self._label_row = _label_rows(num_labels)

    def add(self, prediction: np.ndarray, gt: np.ndarray) -> np.ndarray:
        """Counts one image: predicted and true labels, integer and uint8 (H, W), 255 = none and ignore.

        Returns:
            The image's own matrix.

        Raises:
            LabelRangeError: labels outside the data set's.
            UserError: another size than the mask.
        """
        check_mask(gt, self.num_labels)
        if prediction.shape != gt.shape:
            raise UserError(f"the prediction is of size {prediction.shape}, the mask of {gt.shape}")
        if prediction.dtype != np.uint8:
            if prediction.size and (prediction.min() < 0 or prediction.max() > IGNORE_LABEL):
                found = f"{prediction.min()} to {prediction.max()}"
                raise LabelRangeError(f"the prediction has labels {found}; there are 0 to {self.num_labels - 1}")
            prediction = prediction.astype(np.uint8)
        wide = self.num_labels + 2
        pairs = self._label_row[gt] * wide + self._label_row[prediction]
        counts = np.bincount(pairs.ravel(), minlength=wide * wide).reshape(wide, wide)
        if counts[:, -1].any():
            wrong = np.setdiff1d(prediction, [*range(self.num_labels), IGNORE_LABEL])
            raise LabelRangeError(f"the prediction has label {wrong[0]}; there are 0 to {self.num_labels - 1}")
        own = counts[: self.num_labels, :-1]
        self.matrix += own
        return own

    def __add__(self, other: "ConfusionCounts") -> "ConfusionCounts":
        if self.num_labels != other.num_labels:
            raise ValueError("counts of other labels cannot be added")
        total = ConfusionCounts(self.num_labels)
        total.matrix = self.matrix + other.matrix
        return total

    def scores(self) -> Scores:
        """Scores: arrays (K,)."""
        labels = self.matrix[:, :-1]
        return scores_of(labels.diagonal(), labels.sum(axis=0), self.matrix.sum(axis=1))


def first_argmax(maps: Mapping[int, np.ndarray], num_labels: int, shape: tuple[int, int]) -> np.ndarray:
    """Label mask uint8 (H, W) of a dictionary {label: values (H, W)} with background as label 0.

    As in the reference, labels without a map have the value 0 and the lowest of equal labels wins.

    Raises:
        LabelRangeError: a label outside 0 to ``num_labels`` - 1.
        UserError: maps of another size, or with NaN.
    """
    keys = sorted(maps)
    if keys and (keys[0] < 0 or keys[-1] >= num_labels):
        raise LabelRangeError(f"the prediction has labels {keys}; there are 0 to {num_labels - 1}")
    checked = {key: _checked_map(maps[key], shape, key) for key in keys}
    absent = next((label for label in range(num_labels) if label not in checked), None)
    if absent is not None:  # of all labels of value 0, only the lowest can win
        checked[absent] = np.zeros(shape, dtype=np.float32)
    _, winner = _first_maximum([checked[label] for label in sorted(checked)])
    return np.array(sorted(checked), dtype=np.uint8)[0 if winner is None else winner] + np.zeros(shape, dtype=np.uint8)


def counts_by_argmax(
    seed: Mapping[int, np.ndarray], gt: np.ndarray, num_labels: int, thresholds: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The definition of `SweepCounts`, one argmax over all labels for each threshold. Slow.

    Returns:
        correct (n, K), predicted (n, K), truth (K,): int64.
    """
    stack = np.zeros((num_labels, *gt.shape), dtype=np.float32)
    for key, cam in seed.items():
        stack[key + 1] = cam
    valid = gt < IGNORE_LABEL
    truth = np.bincount(gt[valid], minlength=num_labels)
    predicted, correct = np.zeros((2, len(thresholds), num_labels), dtype=np.int64)
    for index, threshold in enumerate(thresholds):
        stack[0] = threshold
        labels = stack.argmax(axis=0)
        predicted[index] = np.bincount(labels[valid], minlength=num_labels)
        correct[index] = np.bincount(labels[valid & (labels == gt)], minlength=num_labels)
    return correct, predicted, truth


def _first_maximum(maps: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixel-wise maximum of maps and the number of the first that has it (None: there is only one).

    Raises:
        UserError: NaN in a map.
    """
    best = maps[0]
    winner = None
    for number, values in enumerate(maps[1:], start=1):
        better = (values > best).view(np.uint8)
        winner = better if winner is None else np.maximum(winner, better * np.uint8(number))
        best = np.maximum(best, values)
    if best.size and np.isnan(best.max()):  # both maxima propagate NaN
        raise UserError("the maps hold NaN")
    return best, winner


def _label_rows(num_labels: int) -> np.ndarray:
    """A table (256,) from a label to its row: the labels, one row for 255, one for unknown labels."""
    rows = np.full(256, num_labels + 1)
    rows[:num_labels] = np.arange(num_labels)
    rows[IGNORE_LABEL] = num_labels
    return rows


def _checked_map(values: np.ndarray, shape: tuple[int, ...], key: int) -> np.ndarray:
    if values.shape != tuple(shape):
        raise UserError(f"the map of class {key} is of size {values.shape}, the mask of {tuple(shape)}")
    return np.asarray(values, dtype=np.float32)


def check_keys(keys: Sequence[int], num_classes: int) -> None:
    """Raises `LabelRangeError` for foreground class indices outside 0 to ``num_classes`` - 1."""
    if keys and (keys[0] < 0 or keys[-1] >= num_classes):
        raise LabelRangeError(f"the seed has classes {list(keys)}; the data set has 0 to {num_classes - 1}")


def check_mask(gt: np.ndarray, num_labels: int) -> None:
    """Raises `LabelRangeError` for true labels that the data set does not have."""
    if gt.dtype != np.uint8 or gt.ndim != 2:
        raise UserError(f"the mask is {gt.dtype} of shape {gt.shape}; uint8 (H, W) is expected")
    highest = (gt + np.uint8(1)).max(initial=0)  # 255 wraps to 0
    if highest > num_labels:
        raise LabelRangeError(f"the mask has label {highest - 1}; the data set has 0 to {num_labels - 1} and 255")
