"""The result of an evaluation: scores, reported points, files."""

import csv
import functools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.data.classes import BACKGROUND
from common.run.files import atomic_write, write_json
from common.score.counts import ConfusionCounts, Scores, SweepCounts
from common.score.options import EvalConfig
from common.score.trivial import TRIVIAL
from common.visual import plot_curve

SCORES = ("IoU", "precision", "recall")

Counts = SweepCounts | ConfusionCounts


@dataclass(frozen=True)
class Problem:
    """The reason why an image could not be scored; ``fatal``: not the prediction's fault, so it cannot be left out."""

    image_id: str
    reason: str
    fatal: bool = False


@dataclass(frozen=True)
class Point:
    """Scores, in percent, at one threshold (None for tasks that have none)."""

    index: int | None
    threshold: float | None
    miou: float
    mean_precision: float
    mean_recall: float

    def __str__(self) -> str:
        return f"{self.miou:.2f} mIoU" + ("" if self.threshold is None else f" at threshold {self.threshold:.2f}")


@dataclass
class Evaluation:
    """The result of scoring predictions.

    Attributes:
        classes: foreground names.
        images: number of images scored.
        list_name: the images' list; the threshold of ``best`` is tuned on it, too.
        source: origin of the predictions.
        left_out: images that were not scored.
        trivial: mIoU, percent, of trivial predictions, by their names in `common.score.trivial.TRIVIAL`.
        doubts: sentences about values of the predictions that make the scores doubtful.
        fingerprint: all that the scores depend on; see `common.score.origin`.
    """

    task: str
    classes: list[str]
    counts: Counts
    config: EvalConfig
    images: int
    list_name: str = ""
    source: str = ""
    left_out: list[Problem] = field(default_factory=list)
    trivial: dict[str, float] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    fingerprint: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def scores(self) -> Scores:
        """Of K = classes + 1 labels: arrays (thresholds, K) for ``cam``, (K,) else."""
        return self.counts.scores()

    @property
    def confusion(self) -> ConfusionCounts:
        """The counts of a task that predicts labels."""
        if isinstance(self.counts, SweepCounts):
            raise TypeError(f"the task {self.task} has counts for every threshold, no confusion matrix")
        return self.counts

    @property
    def labels(self) -> list[str]:
        """Names of all labels, background first."""
        return [BACKGROUND, *self.classes]

    @property
    def thresholds(self) -> np.ndarray | None:
        """Ascending thresholds of ``cam``, else None."""
        return self.counts.thresholds if isinstance(self.counts, SweepCounts) else None

    @property
    def best(self) -> Point:
        """At the threshold of the highest mIoU (the lowest of equal ones), or of the whole task."""
        return self.point(int(np.argmax(self.scores.miou)) if self.thresholds is not None else None)

    @property
    def fixed(self) -> Point | None:
        """At ``eval.fixed_threshold``."""
        if self.thresholds is None:
            return None
        return self.point(int(np.flatnonzero(self.thresholds == self.config.fixed_threshold)[0]))

    @property
    def reference_best(self) -> Point | None:
        """Best within the range that the method's authors search, if one is set and holds any threshold."""
        inside = self._reference_indices()
        return self.point(int(inside[np.argmax(self.scores.miou[inside])])) if len(inside) else None

    @property
    def early_stop(self) -> Point | None:
        """The end of the authors' search within training: before the first threshold that does not improve."""
        inside = self._reference_indices()
        if not self.config.early_stop or not len(inside):
            return None
        falls = np.flatnonzero(np.diff(self.scores.miou[inside]) <= 0)
        return self.point(int(inside[falls[0] if len(falls) else -1]))

    def _reference_indices(self) -> np.ndarray:
        """Indices of the thresholds within ``eval.reference_range``; none if there is no range or no threshold."""
        if self.thresholds is None or not self.config.reference_range:
            return np.empty(0, dtype=np.int64)
        first, last = self.config.reference_range
        return np.flatnonzero((self.thresholds >= first - 1e-9) & (self.thresholds <= last + 1e-9))

    def point(self, index: int | None) -> Point:
        """The scores at the threshold of that index."""
        at = () if index is None else index
        threshold = None if index is None or self.thresholds is None else float(self.thresholds[index])
        values = self.scores.miou[at], 100 * self.scores.mean_precision[at], 100 * self.scores.mean_recall[at]
        return Point(index, threshold, *map(float, values))

    def per_class(self, point: Point) -> list[tuple[str, float, float, float]]:
        """Name, IoU, precision and recall (percent) of every label at a point."""
        at = slice(None) if point.index is None else point.index
        columns = self.scores.iou[at], 100 * self.scores.precision[at], 100 * self.scores.recall[at]
        return list(zip(self.labels, *(column.tolist() for column in columns), strict=True))

    def points(self) -> dict[str, Point]:
        """The points to report, by name."""
        named = {
            "best": self.best, "fixed": self.fixed, "reference_range": self.reference_best,
            "early_stop": self.early_stop,
        }  # fmt: skip
        return {name: point for name, point in named.items() if point is not None}

    def warnings(self) -> list[str]:
        """Reasons to doubt the scores, a sentence each."""
        if self.source.startswith("trivial "):
            return []
        found = list(self.doubts)
        index, last = self.best.index, None if self.thresholds is None else len(self.thresholds) - 1
        if index is not None and last and index in (0, last):
            found.append(
                f"the best threshold, {self.best.threshold:.2f}, is the {'last' if index else 'first'} one that was "
                "tried: a better one may lie beyond (eval.thresholds)"
            )
        if self.trivial and self.best.miou < min(self.trivial.values()):
            bounds = ", ".join(f"{TRIVIAL[name]}: {miou:.2f}" for name, miou in self.trivial.items())
            found.append(
                f"{self.best.miou:.2f} mIoU is below both trivial predictions ({bounds}). Are the files of another "
                "kind (--task) or of other classes, or is the network not trained?"
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain containers; scores in percent."""
        content: dict[str, Any] = {
            "task": self.task, "source": self.source, "list": self.list_name, "images": self.images,
            "left_out": {problem.image_id: problem.reason for problem in self.left_out}, "unit": "percent",
            "trivial": self.trivial, "warnings": self.warnings(), "fingerprint": self.fingerprint,
        }  # fmt: skip
        for name, point in self.points().items():
            content[name] = {
                "threshold": point.threshold, "mIoU": point.miou, "mean_precision": point.mean_precision,
                "mean_recall": point.mean_recall,
                "classes": {row[0]: dict(zip(SCORES, row[1:], strict=True)) for row in self.per_class(point)},
            }  # fmt: skip
        if self.thresholds is not None:
            content["best"]["tuned_on"] = self.list_name
            content |= {"thresholds": self.thresholds.tolist(), "mIoU": self.scores.miou.tolist()}
            content["reference_thresholds"] = self.config.reference_range or None
        return content

    def write(self, folder: str | Path, stem: str) -> None:
        """Writes ``<stem>.json``, ``.csv`` (a row per label) and, for ``cam``, the curve ``.png``, each atomically."""
        folder = Path(folder)
        write_json(folder / f"{stem}.json", self.as_dict())
        points = self.points()
        with atomic_write(folder / f"{stem}.csv", "w") as file:
            table = csv.writer(file, lineterminator=os.linesep)
            table.writerow(["class", *(f"{score}_{name}" for name in points for score in SCORES)])
            for rows in zip(*(self.per_class(point) for point in points.values()), strict=True):
                table.writerow([rows[0][0], *(f"{value:.4f}" for row in rows for value in row[1:])])
        if self.thresholds is not None:
            marks = {
                f"{name.replace('_', ' ')}: {point.miou:.2f} at {point.threshold:.2f}": (point.threshold, point.miou)
                for name, point in points.items()
                if point.threshold is not None
            }
            title = f"{self.source or self.task}, list {self.list_name}: {self.images} images"
            plot_curve(folder / f"{stem}.png", self.thresholds, self.scores.miou, marks, title)
