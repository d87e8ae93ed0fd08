"""Pixel counts of every single image, at all thresholds: what intervals, comparisons and size scores are made of.

Kept are counts, not maps: some kilobytes an image.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from common.run.errors import UserError
from common.score.average_precision import LEVELS, level_counts
from common.score.bins import JointHistogram, above, looked_up
from common.score.boundary import boundaries_of_labels, boundaries_of_seed
from common.score.counts import ImageSweep

REGION, BOUNDARY = range(2)  # the first axis of all counts


@dataclass(frozen=True)
class ImageCounts:
    """Counts of an image for the m labels in its truth or prediction, background always among them.

    Attributes:
        labels: in any order, int64 (m,).
        truth: pixels of each label, and of its boundary: int64 (2, m).
        predicted: the same of the prediction, at each of n thresholds (1 for tasks without): int32 (2, n, m).
        correct: of these the ones that are right: int32 (2, n, m).
        levels: of the classes that have a map, by class index: `level_counts`, int32 (2, LEVELS).
    """

    image_id: str
    labels: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    correct: np.ndarray
    levels: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class PerImage:
    """Counts of N images and all K labels at one threshold.

    Attributes:
        ids: of the images.
        labels: names, background first.
        truth: pixels of each label, and of its boundary: int64 (2, N, K).
        predicted: the same of the prediction.
        correct: of these the ones that are right.
    """

    ids: list[str]
    labels: list[str]
    truth: np.ndarray
    predicted: np.ndarray
    correct: np.ndarray

    def ordered(self, ids: Sequence[str]) -> "PerImage":
        """The images in another order.

        Raises:
            KeyError: one of them is not here.
        """
        place = {image_id: number for number, image_id in enumerate(self.ids)}
        rows = [place[image_id] for image_id in ids]
        counts = (values[:, rows] for values in (self.truth, self.predicted, self.correct))
        return PerImage(list(ids), self.labels, *counts)


class CardCounts:
    """Counts of single images, and of pairs of true and predicted label over all of them.

    Attributes:
        images: in the order in which they came.
        confusion: by true and predicted foreground label: pixels at each threshold, int64 (n,); empty for tasks that
            predict labels, which count a matrix themselves.
    """

    def __init__(self, num_labels: int, thresholds: int = 0) -> None:
        """Begins with no image.

        Args:
            thresholds: how many there are; 0 for tasks that predict labels.

        Raises:
            UserError: there are more than 65,535.
        """
        if thresholds > np.iinfo(np.uint16).max:
            raise UserError(f"--card counts at up to 65,535 thresholds; eval.thresholds gives {thresholds}")
        self.num_labels = num_labels
        self.thresholds = thresholds
        self.images: list[ImageCounts] = []
        self.confusion: dict[tuple[int, int], np.ndarray] = {}

    def add_seed(self, image_id: str, seed: Mapping[int, np.ndarray], gt: np.ndarray, sweep: ImageSweep) -> None:
        """Counts an image that `SweepCounts.add` has counted.

        Args:
            seed: {foreground class index: values (H, W)}.
            gt: true labels, uint8 (H, W).
            sweep: the result of `SweepCounts.add`.
        """
        keys, count = sweep.keys, self.thresholds
        present = np.flatnonzero(sweep.truth).tolist()
        labels = np.array(list(dict.fromkeys([*(key + 1 for key in keys), 0, *present])))  # the keys', background, rest
        background = len(keys)
        shape = count, len(keys), len(labels)  # by threshold, predicted class, true label
        pairs = above(sweep.histogram[:, labels].reshape(-1, count + 1)).reshape(shape)
        for number, column in np.argwhere(pairs[0]).tolist():
            self._add_pair((int(labels[column]), keys[number] + 1), pairs[:, number, column])
        predicted, correct = np.zeros((2, 2, count, len(labels)), dtype=np.int32)
        predicted[REGION, :, :background] = pairs.sum(axis=2)
        predicted[REGION, :, background] = sweep.truth.sum() - pairs.sum(axis=(1, 2))
        correct[REGION, :, :background] = pairs.diagonal(axis1=1, axis2=2)
        correct[REGION, :, background] = sweep.truth[0] - pairs[:, :, background].sum(axis=1)

        columns = looked_up(gt, labels, np.arange(len(labels)), len(labels))
        of_boundary = boundaries_of_seed(gt, columns, sweep, predicted[REGION])
        truth = np.array([sweep.truth[labels], of_boundary[0]])
        predicted[BOUNDARY], correct[BOUNDARY] = of_boundary[1:]
        histogram = JointHistogram(columns, len(labels) + 1, LEVELS)
        levels = {
            key: level_counts(np.asarray(seed[key], dtype=np.float32), histogram, column)
            for column, key in enumerate(keys)
        }
        self.images.append(ImageCounts(image_id, labels, truth, predicted, correct, levels))

    def add_labels(self, image_id: str, prediction: np.ndarray, gt: np.ndarray, matrix: np.ndarray) -> None:
        """Counts an image that `ConfusionCounts.add` has counted.

        Args:
            prediction: labels, integer (H, W), 255 = none.
            gt: true labels, uint8 (H, W).
            matrix: the result of `ConfusionCounts.add`.
        """
        all_truth = matrix.sum(axis=1)
        all_predicted = matrix[:, :-1].sum(axis=0)
        labels = np.union1d(np.flatnonzero(all_truth + all_predicted), [0])
        predicted, correct = np.zeros((2, 2, 1, len(labels)), dtype=np.int32)
        predicted[REGION, 0] = all_predicted[labels]
        correct[REGION, 0] = matrix.diagonal()[labels]
        of_boundary, predicted[BOUNDARY, 0], correct[BOUNDARY, 0] = boundaries_of_labels(gt, labels, prediction)
        truth = np.stack([all_truth[labels], of_boundary])
        self.images.append(ImageCounts(image_id, labels, truth, predicted, correct))

    def __iadd__(self, other: "CardCounts") -> "CardCounts":
        self.images += other.images
        for pair, counts in other.confusion.items():
            self._add_pair(pair, counts)
        return self

    def _add_pair(self, pair: tuple[int, int], counts: np.ndarray) -> None:
        self.confusion[pair] = self.confusion[pair] + counts if pair in self.confusion else counts

    @classmethod
    def joined(cls, parts: "Sequence[CardCounts]", ids: Sequence[str]) -> "CardCounts":
        """The counts of several processes, the images in the order of a list."""
        total = cls(parts[0].num_labels, parts[0].thresholds)
        for part in parts:
            total += part
        place = {image_id: number for number, image_id in enumerate(ids)}
        total.images.sort(key=lambda image: place[image.image_id])
        return total

    def at(self, index: int, names: Sequence[str]) -> PerImage:
        """The counts at the threshold of an index (0 for tasks without), with the names of the labels."""
        truth, predicted, correct = np.zeros((3, 2, len(self.images), self.num_labels), dtype=np.int64)
        for row, image in enumerate(self.images):
            truth[:, row, image.labels] = image.truth
            predicted[:, row, image.labels] = image.predicted[:, index]
            correct[:, row, image.labels] = image.correct[:, index]
        return PerImage([image.image_id for image in self.images], list(names), truth, predicted, correct)

    def matrix(self, index: int, truth: np.ndarray) -> np.ndarray:
        """Confusion matrix of seeds at a threshold, int64 (K, K), rows are true labels.

        Args:
            truth: pixels of each label, (K,).
        """
        matrix = np.zeros((self.num_labels, self.num_labels), dtype=np.int64)
        for pair, counts in self.confusion.items():
            matrix[pair] = counts[index]
        matrix[:, 0] = truth - matrix.sum(axis=1)
        return matrix

    def levels(self) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """By class: the `level_counts` of the images that have a map, int64 (n, 2, LEVELS), and their numbers."""
        rows: dict[int, list[int]] = defaultdict(list)
        for row, image in enumerate(self.images):
            for key in image.levels:
                rows[key].append(row)
        counts = {key: np.stack([self.images[row].levels[key] for row in own]) for key, own in rows.items()}
        return counts, {key: np.array(own) for key, own in rows.items()}
