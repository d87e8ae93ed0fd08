"""Pixel counts of every single image, at all thresholds: what intervals, comparisons and size scores are made of.

Kept are counts, not maps: some kilobytes an image.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from common.data.classes import IGNORE_LABEL
from common.run.errors import UserError
from common.score.average_precision import level_counts
from common.score.bins import above, level_histogram
from common.score.boundary import boundary_distance, eroded
from common.score.counts import ImageSweep

REGION, BOUNDARY = range(2)  # the first axis of all counts


@dataclass(frozen=True)
class ImageCounts:
    """Counts of an image for the m labels in its truth or prediction, background always among them.

    Attributes:
        labels: ascending, int64 (m,).
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
        count = self.thresholds
        keys = sweep.keys
        labels = np.union1d(np.flatnonzero(sweep.truth), [0, *(key + 1 for key in keys)])
        of_keys = {key + 1: above(rows) for key, rows in zip(keys, sweep.histogram, strict=True)}  # (n, K) each
        predicted, correct = np.zeros((2, 2, count, len(labels)), dtype=np.int32)
        for column, label in enumerate(labels.tolist()):
            if label in of_keys:
                predicted[REGION, :, column] = of_keys[label].sum(axis=1)
                correct[REGION, :, column] = of_keys[label][:, label]
        predicted[REGION, :, 0] = sweep.truth.sum() - predicted[REGION, :, 1:].sum(axis=1)
        correct[REGION, :, 0] = sweep.truth[0] - sum(rows[:, 0] for rows in of_keys.values())
        for label, rows in of_keys.items():
            for true in np.flatnonzero(rows[0]).tolist():
                self._add_pair((true, label), rows[:, true])

        dtype = np.uint8 if count <= np.iinfo(np.uint8).max else np.uint16
        valid = gt != IGNORE_LABEL
        bins = np.zeros(gt.shape, dtype) if sweep.bins is None else sweep.bins.astype(dtype) * valid
        regions = {0: (dtype(count) - bins) * valid}  # background at threshold i: at most i below the value
        for number, key in enumerate(keys):
            regions[key + 1] = bins if sweep.winner is None else bins * (sweep.winner == number)
        of_boundary = _boundaries(gt, labels, regions, predicted[REGION], reverse=True)
        truth = np.stack([sweep.truth[labels], of_boundary[0]])
        predicted[BOUNDARY], correct[BOUNDARY] = of_boundary[1:]
        levels = {
            key: level_counts(np.asarray(seed[key], dtype=np.float32), gt == key + 1, valid).astype(np.int32)
            for key in keys
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
        valid = gt != IGNORE_LABEL
        regions = {label: ((prediction == label) & valid).view(np.uint8) for label in labels.tolist()}
        of_boundary = _boundaries(gt, labels, regions, predicted[REGION])
        predicted[BOUNDARY], correct[BOUNDARY] = of_boundary[1:]
        truth = np.stack([all_truth[labels], of_boundary[0]])
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


def _boundaries(
    gt: np.ndarray, labels: np.ndarray, regions: Mapping[int, np.ndarray], areas: np.ndarray, reverse: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boundary pixels of the truth, of the prediction, and of both: (m,), (n, m), (n, m).

    Args:
        labels: ascending, background first, (m,).
        regions: of the prediction, disjoint, by label: at threshold i the pixels of levels above i, unsigned (H, W).
        areas: predicted pixels of each label, (n, m).
        reverse: whether the thresholds of background come in descending order.
    """
    distance = boundary_distance((gt.shape[0], gt.shape[1]))
    num_levels = len(areas) + 1
    truth = np.zeros(len(labels), dtype=np.int64)
    inside, correct = np.zeros((2, len(labels), num_levels), dtype=np.int64)  # by label and level
    for column, label in enumerate(labels.tolist()):
        region = (gt == label).view(np.uint8)
        x, y, width, height = cv2.boundingRect(region)
        part = slice(y, y + height), slice(x, x + width)
        edge = region[part] ^ eroded(np.ascontiguousarray(region[part]), distance) if width else region[part]
        truth[column] = np.count_nonzero(edge)
        if label in regions:
            inner = eroded(regions[label], distance)
            inside[column] = level_histogram(inner, num_levels)
            correct[column] = level_histogram(regions[label][part] * edge, num_levels)
            correct[column] -= level_histogram(inner[part] * edge, num_levels)
    of_both, of_inside = above(correct), above(inside)
    if reverse:
        of_both[:, 0], of_inside[:, 0] = of_both[::-1, 0].copy(), of_inside[::-1, 0].copy()
    return truth, areas - of_inside, of_both
