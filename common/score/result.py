"""The result of an evaluation: scores, reported points, files."""

import csv
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.data.classes import BACKGROUND
from common.data.thresholds import write_thresholds
from common.run.errors import preview
from common.run.files import atomic_write, write_json
from common.score.bootstrap import CONFIDENCE, RESAMPLES, SEED
from common.score.boundary import RATIO
from common.score.card import point_card, precision_card, remove_card, write_card
from common.score.counts import ConfusionCounts, Scores, SweepCounts
from common.score.image_counts import REGION, CardCounts, PerImage
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
    """Scores, in percent, at one threshold (None for tasks that have none).

    Attributes:
        miou: over all labels of the data set, as in the papers: an absent label counts as 0.
        miou_present: over the labels that are present, in the masks or in the predictions.
        absent: labels that are not.
    """

    index: int | None
    threshold: float | None
    miou: float
    mean_precision: float
    mean_recall: float
    miou_present: float
    absent: tuple[str, ...] = ()

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
        card: counts of single images, if a card was asked for.
        tuned: the evaluation of another list, whose best threshold is reported as ``tuned``.
        findings: reasons to doubt the true masks, a sentence each; see `common.score.mask_meaning`.
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
    card: CardCounts | None = None
    tuned: "Evaluation | None" = None
    findings: list[str] = field(default_factory=list)

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

    @property
    def tuned_point(self) -> Point | None:
        """At the best threshold of another list (`tuned`)."""
        return None if self.tuned is None else self.point(self.tuned.best.index)

    @property
    def class_thresholds(self) -> dict[str, float]:
        """The best threshold of each label that is present at the best threshold."""
        if self.thresholds is None:
            return {}
        at = self.thresholds[self.scores.iou.argmax(axis=0)].tolist()
        return {label: value for label, value in zip(self.labels, at, strict=True) if label not in self.best.absent}

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
        present = self._present[at]
        iou = self.scores.iou[at][present]
        return Point(
            index, threshold, float(self.scores.miou[at]), 100 * float(self.scores.mean_precision[at]),
            100 * float(self.scores.mean_recall[at]), float(iou.mean()) if len(iou) else 0.0,
            tuple(label for label, there in zip(self.labels, present, strict=True) if not there),
        )  # fmt: skip

    @functools.cached_property
    def _present(self) -> np.ndarray:
        """Whether each label occurs in the masks or in the predictions, (thresholds, K) or (K,)."""
        if isinstance(self.counts, SweepCounts):
            return (self.counts.truth + self.counts.predicted) > 0
        return (self.counts.matrix.sum(axis=1) + self.counts.matrix[:, :-1].sum(axis=0)) > 0

    def per_class(self, point: Point) -> list[tuple[str, float, float, float]]:
        """Name, IoU, precision and recall (percent) of every label at a point."""
        at = slice(None) if point.index is None else point.index
        columns = self.scores.iou[at], 100 * self.scores.precision[at], 100 * self.scores.recall[at]
        return list(zip(self.labels, *(column.tolist() for column in columns), strict=True))

    def points(self) -> dict[str, Point]:
        """The points to report, by name."""
        named = {
            "best": self.best, "fixed": self.fixed, "reference_range": self.reference_best,
            "early_stop": self.early_stop, "tuned": self.tuned_point,
        }  # fmt: skip
        return {name: point for name, point in named.items() if point is not None}

    def warnings(self) -> list[str]:
        """Reasons to doubt the scores, a sentence each."""
        if self.source.startswith("trivial "):
            return []
        found = [*self.findings, *self.doubts]
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
        if self.best.absent:
            found.append(
                "labels that are neither in the masks nor in the predictions count as 0 in the papers' mIoU: "
                f"{preview(self.best.absent)}. Over the labels that are present it is {self.best.miou_present:.2f}"
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
                "mean_recall": point.mean_recall, "mIoU_present": point.miou_present, "absent": list(point.absent),
                "classes": {row[0]: dict(zip(SCORES, row[1:], strict=True)) for row in self.per_class(point)},
            }  # fmt: skip
        if self.thresholds is not None:
            content["best"]["tuned_on"] = self.list_name
            content |= {"thresholds": self.thresholds.tolist(), "mIoU": self.scores.miou.tolist()}
            content["reference_thresholds"] = self.config.reference_range or None
        if self.tuned is not None:
            content["tuned"] |= {"tuned_on": self.tuned.list_name, "class_thresholds": self.tuned.class_thresholds}
        return content

    def images_at(self, point: Point) -> PerImage:
        """The counts of single images at a point.

        Raises:
            ValueError: no card was counted.
        """
        if self.card is None:
            raise ValueError("evaluate(..., card=True) counts single images")
        return self.card.at(point.index or 0, self.labels)

    def card_content(self, counts: Mapping[str, PerImage]) -> dict[str, Any]:
        """The evaluation card as plain containers, of the counts of images by point; scores in percent."""
        if self.card is None:
            raise ValueError("evaluate(..., card=True) counts single images")
        points = {}
        for name, point in self.points().items():
            sums = counts[name].truth[REGION].sum(axis=0)
            is_sweep = isinstance(self.counts, SweepCounts)
            matrix = self.card.matrix(point.index or 0, sums) if is_sweep else self.confusion.matrix
            points[name] = {"threshold": point.threshold, **point_card(counts[name], matrix)}
        content: dict[str, Any] = {
            "task": self.task, "source": self.source, "list": self.list_name, "images": self.images, "unit": "percent",
            "labels": self.labels, "confidence": CONFIDENCE, "resamples": RESAMPLES, "seed": SEED,
            "boundary": f"{100 * RATIO:g} % of the diagonal", "main": "best" if self.tuned is None else "tuned",
            "points": points,
        }  # fmt: skip
        if self.thresholds is not None:
            best = self.class_thresholds
            iou = dict(zip(self.labels, self.scores.iou.max(axis=0).tolist(), strict=True))
            content["oracle"] = {
                "mIoU": float(self.scores.iou.max(axis=0).mean()),
                "classes": {label: {"threshold": best[label], "IoU": iou[label]} for label in best},
            }
            content["average_precision"] = precision_card(self.card, counts["best"].truth[REGION], self.labels)
        return content

    def _write_thresholds(self, path: Path) -> None:
        """Writes the thresholds of classes that are best on the tuning list; without such a list, deletes them."""
        if self.tuned is None:
            path.unlink(missing_ok=True)
            return
        found = {name: value for name, value in self.tuned.class_thresholds.items() if name != self.labels[0]}
        settings = {"list": self.tuned.list_name, "images": self.tuned.images, "source": self.source}
        write_thresholds(path, list(found), list(found.values()), settings)

    def write(self, folder: str | Path, stem: str) -> None:
        """Writes ``<stem>.json``, ``.csv`` (a row per label) and, for ``cam``, the curve ``.png``, each atomically.

        With counts of single images also the files of the card; else the ones of an earlier card are deleted. With
        thresholds tuned on another list also ``<stem>_thresholds.json``.
        """
        folder = Path(folder)
        remove_card(folder, stem)
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
            bounds = {f"{TRIVIAL[name]}: {miou:.2f}": miou for name, miou in self.trivial.items()}
            plot_curve(folder / f"{stem}.png", self.thresholds, self.scores.miou, marks, title, bounds)
        if self.card is not None:
            counts = {name: self.images_at(point) for name, point in points.items()}
            write_card(folder, stem, self.card_content(counts), counts)
        self._write_thresholds(folder / f"{stem}_thresholds.json")
        write_json(folder / f"{stem}.json", self.as_dict())  # last: a pipeline takes it for the end of the evaluation
