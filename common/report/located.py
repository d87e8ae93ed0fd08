"""The boxes of a localisation as the page needs them: images, true and found boxes, maps, scores, comparison."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.data.cub import CUBConfig, CUBImages
from common.data.images import ImageFile
from common.report import pictures
from common.report.source import Source
from common.run.config import read_yaml
from common.run.errors import UserError
from common.run.folder import BOX_SCORES, RunFolder
from common.run.text import read_json_object
from common.score.bootstrap import draws, interval
from common.score.boxes import HITS, THRESHOLDS, BoxFile, boxes_path, thresholds_below
from common.score.read import is_number

SCORES = (*HITS, "max_box_acc", "max_box_acc_v2", "box_acc", "box_acc_v2")  # that have an interval
LEAST_IOU = 0.5  # of a box that is right
AGAIN = "score the localisation again"


class LocatedRun(Source):
    """The boxes of a run's weights, by ``NAME:eval_wsol:WEIGHTS``, or ``NAME`` alone if it has no other scores.

    Attributes:
        weights: the shown ones; by default the last, which are not chosen on the scored images.
        scores: of all weights, by name.
        content: of the box file.
    """

    task = "box"
    thresholds = THRESHOLDS

    def __init__(self, text: str) -> None:
        """Opens the scores and the boxes.

        Raises:
            UserError: run, scores, boxes or images are missing or damaged, or do not belong together.
        """
        name, _, rest = text.partition(":")
        weights = rest.partition(":")[2]
        self.run = RunFolder(name).existing()
        path = self.run.scores(BOX_SCORES)
        found = read_json_object(path, "the scores of a localisation")
        self.scores: dict[str, dict[str, Any]] = found.get("weights") or {}
        self.list_name = str(found.get("list", ""))
        if not isinstance(self.scores, dict) or not self.scores or not all(map(_is_score, self.scores.values())):
            raise UserError(f"{path} holds no scores of a localisation; {AGAIN}")
        if weights and weights not in self.scores:
            raise UserError(f"{path} has no weights {weights!r}; there are: {', '.join(self.scores)}")
        self.weights = weights or ("last" if "last" in self.scores else next(iter(self.scores)))
        self.title = f"{name}:{BOX_SCORES}:{self.weights}" if weights else name
        self.content = BoxFile.read(boxes_path(self.run.path, self.weights))
        self.images = CUBImages(_cub_of(self.run), self.list_name)
        self.labels = ["background", *self.images.classes]
        self._places = {image_id: index for index, image_id in enumerate(self.images.ids)}
        self._rows = {image_id: row for row, image_id in enumerate(self.content.ids.tolist())}
        classes = max(int(self.content.labels.max()), int(self.content.first.max()))
        if self._rows.keys() != self._places.keys() or classes >= len(self.images.classes):
            raise UserError(
                f"{boxes_path(self.run.path, self.weights)} is of other images or classes than "
                f"{self.images.root} has; {AGAIN}"
            )

    @property
    def ids(self) -> list[str]:
        """As `Source.ids`."""
        return self.images.ids

    def file(self, image_id: str) -> ImageFile:
        """As `Source.file`."""
        return self.images.file(self._places[image_id])

    def truth(self, image_id: str, shape: tuple[int, int]) -> dict[str, Any]:
        """The true box, and the side of the square that all boxes are in."""
        box = self.content.true_boxes[self._rows[image_id]].tolist()
        return {"side": int(self.content.side), "trueBox": box}

    def entry(self, image_id: str, shape: tuple[int, int]) -> dict[str, Any]:
        """The map's number of thresholds, the evaluation's boxes at them, and the box of a wrong first class.

        ``boxes`` has an entry where the box changes: index of the threshold, corners, IoU in percent.
        """
        own = self.content
        row = self._rows[image_id]
        number = thresholds_below(own.grey(row))
        first = None if own.first[row] == own.labels[row] else own.first_boxes[row].tolist()
        boxes: list[list[float]] = []
        for index, (box, iou) in enumerate(zip(own.boxes[row].tolist(), own.ious[row].tolist(), strict=True)):
            if not boxes or boxes[-1][1:5] != box:
                boxes.append([index, *box, round(100 * iou, 1)])
        return {"number": pictures.smooth_plane(number), "boxes": boxes, "firstBox": first}

    def image_scores(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The IoU at the evaluation's threshold, the true and the first class, and the outcome of the first's box."""
        own = self.content
        rows = [self._rows[image_id] for image_id in ids]
        return [
            {
                "iou": round(100 * float(own.known_ious[row]), 2), "labels": [int(own.labels[row]) + 1],
                "first": int(own.first[row]) + 1, "outcome": str(own.outcomes[row]),
            }
            for row in rows
        ]  # fmt: skip

    def hits(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Percent of each image by each score that an image has or has not, and its IoU, (N,) each."""
        rows = [self._rows[image_id] for image_id in ids]
        found = {name: 100.0 * self.content.hits[rows, column] for column, name in enumerate(HITS)}
        return {**found, "mean_iou": 100.0 * self.content.known_ious[rows]}


def located_facts(source: LocatedRun) -> dict[str, Any]:
    """Scores of all weights, classes, outcomes, and GT-known over the thresholds."""
    own = source.content
    return {
        "images": len(source.ids), "threshold": float(own.threshold), "side": int(own.side),
        "means": _entries(source.scores[source.weights]), "shownWeights": source.weights,
        "weights": [
            {"name": name, "chosen": found.get("chosen_on"), "means": _entries(found)}
            for name, found in source.scores.items()
        ],
        "curve": (100 * (own.ious >= LEAST_IOU).mean(axis=0)).tolist(),
        "outcomes": [
            {"name": name, "share": 100 * count / len(own.ids)}
            for name, count in Counter(own.outcomes.tolist()).most_common()
        ],
        "classes": class_rows(source), "pairs": confusions(source),
    }  # fmt: skip


def class_rows(source: LocatedRun) -> list[dict[str, Any]]:
    """A row for each class with images: their number, GT-known with its interval, Top-1, Cls@1, mean IoU."""
    own = source.content
    classes = len(source.images.classes)
    is_of = own.labels[:, None] == np.arange(classes)  # N C
    totals = is_of.sum(axis=0)
    hits = source.hits(own.ids.tolist())
    known = is_of * hits["gt_known"][:, None]
    weights = np.concatenate(list(draws(len(own.ids))))
    with np.errstate(invalid="ignore"):
        drawn = (weights @ known) / (weights @ is_of)  # R C
    rows = []
    for label in np.flatnonzero(totals).tolist():
        found = interval(float(known[:, label].sum() / totals[label]), drawn[:, label])
        rest = {name: float(hits[name][is_of[:, label]].mean()) for name in ("loc_top1", "cls_top1", "mean_iou")}
        rows.append({
            "label": label + 1, "name": source.images.classes[label], "images": int(totals[label]),
            "gt_known": {"value": found.value, "interval": [found.low, found.high]}, **rest,
        })  # fmt: skip
    return rows


def confusions(source: LocatedRun) -> list[dict[str, Any]]:
    """Pairs of a true class and another that is the first instead, the most frequent first."""
    own = source.content
    wrong = own.labels != own.first
    pairs = Counter(zip(own.labels[wrong].tolist(), own.first[wrong].tolist(), strict=True))
    totals = Counter(own.labels.tolist())
    return [
        {"truth": truth + 1, "predicted": first + 1, "images": count, "share": 100 * count / totals[truth]}
        for (truth, first), count in pairs.most_common(60)
    ]


def located_comparison(sources: Sequence[LocatedRun]) -> list[dict[str, Any]]:
    """Differences of each further run from the first, with paired intervals.

    Raises:
        UserError: the runs are of different images.
    """
    first = sources[0]
    if any(set(source.ids) != set(first.ids) for source in sources):
        raise UserError("the runs located the objects of different images; score them on the same split")
    base = first.hits(first.ids)
    rows = []
    for source in sources[1:]:
        means = {}
        for name, values in source.hits(first.ids).items():
            change = values - base[name]
            drawn = np.concatenate([weights @ change for weights in draws(len(change))]) / len(change)
            means[name] = list(interval(float(change.mean()), drawn))
        rows.append({"title": source.title, "means": means})
    return rows


def _entries(found: Mapping[str, Any]) -> dict[str, Any]:
    intervals = found.get("intervals") or {}
    return {
        name: {"value": float(found[name]), "interval": intervals.get(name, [None, None])}
        for name in SCORES
        if name in found
    }


def _is_score(found: Any) -> bool:
    """Whether an entry of the JSON has the known scores as numbers, and their intervals as pairs of such."""
    if not isinstance(found, dict):
        return False
    intervals = found.get("intervals", {})
    pairs = [pair for name, pair in intervals.items() if name in SCORES] if isinstance(intervals, dict) else [None]
    return (
        all(name in found for name in HITS)
        and all(is_number(found[name]) and math.isfinite(found[name]) for name in SCORES if name in found)
        and all(isinstance(pair, list) and len(pair) == 2 and all(map(is_number, pair)) for pair in pairs)
    )


def _cub_of(run: RunFolder) -> CUBConfig:
    """The data set that a run's configuration names."""
    data = read_yaml(run.config).get("data") or {}
    root = data.get("root") if isinstance(data, dict) else None
    if not isinstance(root, str):
        raise UserError(f"{run.config} does not name the data set of the boxes (data.root)")
    return CUBConfig(root)
