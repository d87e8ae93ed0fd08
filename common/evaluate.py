"""Scoring predictions against masks: from files by `evaluate`, or image by image during training.

From files (all processes call it, each reads its share, all get the same result or error):

    masks = MaskFiles(config.data, "train")
    result = evaluate(masks.ids, FilePredictions(folder, "cam"), masks, classes, config.eval, processes=processes)
    result.best.miou, result.fixed.miou                  # percent
    result.write(run.path, "eval_cam")                   # eval_cam.json, .csv, .png

In training, where seeds are in memory:

    counts = new_counts("cam", len(classes) + 1, config.eval)
    for ...: counts.add({class index: float32 (H, W)}, mask)
    result = Evaluation("cam", classes, summed(counts, processes), config.eval, images=len(ids), list_name=name)

``classes`` are the foreground names; label 0 is background everywhere else.
"""

import csv
import functools
import itertools
import operator
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from common.config import option
from common.data.classes import BACKGROUND
from common.data.dataset import LAYOUTS, DataConfig, read_mask
from common.data.lists import find_list, read_list
from common.dist import Processes
from common.errors import UserError
from common.files import atomic_write, load_npy, write_json
from common.metrics import ConfusionCounts, LabelRangeError, Scores, SweepCounts, first_argmax
from common.seeds import FORMATS, read_seed, seed_path
from common.visual import plot_curve

TASKS = ("cam", "crf", "png", "dl")
CHUNK = 8  # images a thread takes at a time
SHOWN = 40  # unusable predictions that an error message lists
SCORES = ("IoU", "precision", "recall")

Counts = SweepCounts | ConfusionCounts
Prediction = dict[int, np.ndarray] | np.ndarray


@dataclass
class EvalConfig:
    """At which background thresholds seeds are scored."""

    thresholds: list[float] = option([0.0, 0.99, 0.01], "First, last and step of the background thresholds.")
    fixed_threshold: float = option(0.4, "A threshold chosen beforehand, whose score is reported beside the best.")
    reference_range: list[float] = option([], "First and last threshold that the method's authors search; empty: none.")

    def grid(self) -> list[float]:
        """All thresholds in ascending order, the fixed one among them.

        Raises:
            UserError: not three numbers, or none from the first to the last.
        """
        if len(self.thresholds) != 3 or not self.thresholds[2] > 0 or not 0 <= self.thresholds[0] <= self.thresholds[1]:
            raise UserError(f"eval.thresholds={self.thresholds}: give first, last and step, such as [0.0, 0.99, 0.01]")
        if self.fixed_threshold < 0:
            raise UserError(f"eval.fixed_threshold={self.fixed_threshold} must not be negative")
        if len(self.reference_range) not in (0, 2):
            raise UserError(f"eval.reference_range={self.reference_range}: first and last threshold are needed, or []")
        first, last, step = self.thresholds
        count = int(np.floor((last - first) / step + 1e-6)) + 1
        values = np.round(first + step * np.arange(count), 10)  # 10 decimals: the same numbers as i / 100
        return sorted({*values.tolist(), self.fixed_threshold})


class MaskFiles:
    """Ground-truth masks of a list's images; called with an id, reads one: uint8 (H, W).

    Attributes:
        ids: the list's image ids, in its order.
    """

    def __init__(self, config: DataConfig, list_name: str, gt_dir: str = "") -> None:
        """Reads the list.

        Args:
            list_name: A list's name or file; ``all`` of a folder data set: every image that has a mask.
            gt_dir: Folder of the masks, in place of the data set's own. COCO's file names hold the split, which is then
                taken from this path: ``train`` if that is in it, else ``val``.

        Raises:
            UserError: there is no such list.
        """
        pattern = config.mask or LAYOUTS[config.dataset].mask
        split = config.split if config.split != "auto" else ("val" if "val" in Path(list_name).stem else "train")
        self._pattern = str(Path(config.root) / pattern)
        if gt_dir:
            split = "train" if "train" in gt_dir else "val"
            self._pattern = str(Path(gt_dir) / Path(pattern).name)
        self._pattern = self._pattern.replace("{split}", split)
        file = Path(self._pattern)
        self._provided_by = LAYOUTS[config.dataset].provided_by
        if config.dataset == "folder" and list_name == "all":
            self.ids = sorted(path.stem for path in file.parent.glob(file.name.replace("{id}", "*")))
        else:
            self.ids = read_list(find_list(list_name, config.dataset, config.root), config.dataset)

    def path(self, image_id: str) -> Path:
        """Where the mask of an image is, or would be."""
        return Path(self._pattern.replace("{id}", image_id))

    def __call__(self, image_id: str) -> np.ndarray:
        path = self.path(image_id)
        if not path.is_file():
            raise UserError(f"no ground-truth mask {path}. Give its folder (--gt_dir) or get it: {self._provided_by}")
        return read_mask(path)


@dataclass(frozen=True)
class FilePredictions:
    """Predictions in a folder, one file per image; called with id and size, reads one.

    ``cam``: seed files. ``crf`` and ``dl``: ``<id>.npy`` with {label: scores (H, W)}, background as 0, or an integer
    array of labels. ``png``: ``<id>.png`` of label indices.
    """

    folder: Path
    task: str

    def __call__(self, image_id: str, shape: tuple[int, int]) -> Prediction:
        """Raises `UserError` for a missing, damaged or unsafe file."""
        folder = Path(self.folder)
        if self.task == "cam":
            path = seed_path(folder, image_id)
            if path is None:
                raise UserError(f"missing: {folder / image_id}.{' or .'.join(FORMATS)}")
            return read_seed(path)
        path = folder / f"{image_id}.{'png' if self.task == 'png' else 'npy'}"
        if not path.is_file():
            raise UserError(f"missing: {path}")
        if self.task == "png":
            return read_mask(path)
        content = load_npy(path)
        if isinstance(content, np.ndarray) and content.ndim == 2 and content.dtype.kind in "iub":
            return content
        return read_seed(path)  # names what is wrong with anything that is no dictionary of maps


@dataclass(frozen=True)
class Problem:
    """Why an image could not be scored; ``fatal``: not the prediction's fault, leaving it out is no answer."""

    image_id: str
    reason: str
    fatal: bool = False


class UnusablePredictions(UserError):
    """Predictions are missing, damaged or of the wrong size; ``problems`` has all of them."""

    def __init__(self, problems: Sequence[Problem], total: int) -> None:
        self.problems = list(problems)
        lines = [f"  {problem.image_id}: {problem.reason}" for problem in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"  and {len(self.problems) - SHOWN} more")
        super().__init__("\n".join([f"{len(self.problems)} of {total} images cannot be scored:", *lines]))


def new_counts(task: str, num_labels: int, config: EvalConfig) -> Counts:
    """Empty counts: over all thresholds for ``cam``, a confusion matrix for the tasks that predict labels."""
    return SweepCounts(num_labels, config.grid()) if task == "cam" else ConfusionCounts(num_labels)


def summed(counts: Counts, processes: Processes) -> Counts:
    """The sum of all processes' counts, on all of them."""
    return functools.reduce(operator.add, processes.gather_objects(counts))


def evaluate(
    ids: Sequence[str],
    predict: Callable[[str, tuple[int, int]], Prediction],
    masks: Callable[[str], np.ndarray],
    classes: Sequence[str],
    config: EvalConfig,
    task: str = "cam",
    list_name: str = "",
    source: str = "",
    allow_missing: bool = False,
    processes: Processes = Processes(),  # noqa: B008 - immutable
    num_workers: int = 0,
    progress: bool = True,
) -> "Evaluation":
    """Scores predictions of the images ``ids``.

    Args:
        predict: Gives an image's prediction from its id and (H, W): a seed for ``cam``, label scores or labels else.
        masks: Gives an image's true labels, uint8 (H, W), from its id.
        classes: Foreground class names.
        source: Where the predictions come from, for the record.
        allow_missing: Leave out images without a usable prediction, and record them, instead of failing.
        num_workers: Threads of this process; 0 works in the calling one.

    Raises:
        UnusablePredictions: predictions are missing, damaged or of another size than their mask, which is not
            allowed; masks are missing or damaged, labels are not the data set's, or nothing is left to score.
    """
    empty = functools.partial(new_counts, task, len(classes) + 1, config)
    score = functools.partial(_count_chunk, predict=predict, masks=masks, empty=empty)
    share = processes.shard(list(enumerate(ids)))
    chunks = [share[start : start + CHUNK] for start in range(0, len(share), CHUNK)]
    counts, problems = empty(), []
    shown = progress and processes.is_main
    with (
        ThreadPoolExecutor(max(num_workers, 1)) as threads,
        tqdm(total=len(share), desc=f"evaluating {task}", unit="img", disable=not shown, dynamic_ncols=True) as bar,
    ):
        for chunk, (part, wrong) in zip(chunks, (threads.map if num_workers else map)(score, chunks), strict=True):
            counts += part
            problems += wrong
            bar.update(len(chunk))
    counts = summed(counts, processes)
    numbered = itertools.chain.from_iterable(processes.gather_objects(problems))
    problems = [problem for _, problem in sorted(numbered, key=operator.itemgetter(0))]
    _judge(problems, len(ids), allow_missing)
    return Evaluation(task, list(classes), counts, config, len(ids) - len(problems), list_name, source, problems)


def _count_chunk(
    chunk: Sequence[tuple[int, str]], predict: Callable, masks: Callable, empty: Callable[[], Counts]
) -> tuple[Counts, list[tuple[int, Problem]]]:
    counts, problems = empty(), []
    for position, image_id in chunk:
        try:
            gt = masks(image_id)
        except UserError as error:
            problems.append((position, Problem(image_id, str(error), fatal=True)))
            continue
        try:
            prediction = predict(image_id, gt.shape)
            if isinstance(counts, ConfusionCounts) and isinstance(prediction, dict):
                prediction = first_argmax(prediction, counts.num_labels, gt.shape)
            counts.add(prediction, gt)
        except UserError as error:
            problems.append((position, Problem(image_id, str(error), fatal=isinstance(error, LabelRangeError))))
    return counts, problems


def _judge(problems: Sequence[Problem], total: int, allow_missing: bool) -> None:
    if not total:
        raise UserError("there is no image to score: the list is empty")
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        raise UnusablePredictions(fatal, total)
    if problems and (not allow_missing or len(problems) == total):
        raise UnusablePredictions(problems, total)


@dataclass(frozen=True)
class Point:
    """Scores, in percent, at one threshold (None for tasks that have none)."""

    index: int | None
    threshold: float | None
    miou: float
    mean_precision: float
    mean_recall: float


@dataclass
class Evaluation:
    """What was scored and how it came out.

    Attributes:
        classes: foreground names.
        images: number of images scored.
        list_name: the images' list, which is also what tuned the threshold of ``best``.
        source: where the predictions came from.
        left_out: images that were not scored.
    """

    task: str
    classes: list[str]
    counts: Counts
    config: EvalConfig
    images: int
    list_name: str = ""
    source: str = ""
    left_out: list[Problem] = field(default_factory=list)

    @functools.cached_property
    def scores(self) -> Scores:
        """Of K = classes + 1 labels: arrays (thresholds, K) for ``cam``, (K,) else."""
        return self.counts.scores()

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
        if self.thresholds is None or not self.config.reference_range:
            return None
        first, last = self.config.reference_range
        inside = np.flatnonzero((self.thresholds >= first - 1e-9) & (self.thresholds <= last + 1e-9))
        return self.point(int(inside[np.argmax(self.scores.miou[inside])])) if len(inside) else None

    def point(self, index: int | None) -> Point:
        """The scores at the threshold of that index."""
        at = () if index is None else index
        threshold = None if index is None else float(self.thresholds[index])
        values = self.scores.miou[at], 100 * self.scores.mean_precision[at], 100 * self.scores.mean_recall[at]
        return Point(index, threshold, *map(float, values))

    def per_class(self, point: Point) -> list[tuple[str, float, float, float]]:
        """Name, IoU, precision and recall (percent) of every label at a point."""
        at = slice(None) if point.index is None else point.index
        columns = self.scores.iou[at], 100 * self.scores.precision[at], 100 * self.scores.recall[at]
        return list(zip(self.labels, *(column.tolist() for column in columns), strict=True))

    def points(self) -> dict[str, Point]:
        """The points to report, by name."""
        named = {"best": self.best, "fixed": self.fixed, "reference_range": self.reference_best}
        return {name: point for name, point in named.items() if point is not None}

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain containers; scores in percent."""
        content: dict[str, Any] = {
            "task": self.task, "source": self.source, "list": self.list_name, "images": self.images,
            "left_out": {problem.image_id: problem.reason for problem in self.left_out}, "unit": "percent",
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
            }
            title = f"{self.source or self.task}, list {self.list_name}: {self.images} images"
            plot_curve(folder / f"{stem}.png", self.thresholds, self.scores.miou, marks, title)
