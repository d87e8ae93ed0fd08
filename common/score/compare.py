"""Comparison of scored runs on the same images: paired differences with intervals.

    runs = aligned([read_run("a"), read_run("b:eval_png")])
    difference(group_of(runs[:1]), group_of(runs[1:]))["mIoU"]          # an Interval: b above a

Every run needs an evaluation card. As all runs are drawn alike, images that are hard for both do not blur the
difference. Runs whose configurations differ in the random seed alone are one group: its score is their mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from common.run.config import read_yaml
from common.run.errors import UserError, preview
from common.run.folder import CARD, SEED_SCORES, RunFolder
from common.score.bootstrap import Interval, interval
from common.score.card import read_card, read_counts
from common.score.image_counts import REGION, PerImage
from common.score.means import drawn_totals, label_scores, means, plain_totals, present_labels


@dataclass(frozen=True)
class ScoredRun:
    """A run's evaluation card at one point.

    Attributes:
        title: as it was named.
        settings: the run's configuration without the seed, the scored files among it; None if there is none.
        seed: random seed of the run.
    """

    title: str
    counts: PerImage
    list_name: str = ""
    settings: dict[str, Any] | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds alone, mostly a single one, and their scores: plain and of the draws.

    Attributes:
        means: by name, percent (runs, 1 + R); the first column is of the images themselves.
        labels: IoU of each label, percent (runs, 1 + R, K).
        images: mean IoU of each image over the labels in it, percent (runs, N).
    """

    runs: list[ScoredRun]
    means: dict[str, np.ndarray]
    labels: np.ndarray
    images: np.ndarray

    @property
    def title(self) -> str:
        """The names of its runs."""
        return ", ".join(run.title for run in self.runs)

    def interval(self, name: str) -> Interval:
        """A mean of `common.score.means.MEANS`, averaged over the runs."""
        return _interval(self.means[name].mean(axis=0))

    def spread(self, name: str) -> tuple[float, float] | None:
        """Mean and standard deviation (n - 1) over the seeds; None for a single run."""
        values = self.means[name][:, 0]
        return (float(values.mean()), float(values.std(ddof=1))) if len(values) > 1 else None


def read_run(text: str, point: str = "") -> ScoredRun:
    """A run's card, by ``NAME`` or ``NAME:STEM``; STEM is that of the evaluation's files, by default ``eval_cam``.

    Args:
        point: one of the reported points; empty: the card's main one.

    Raises:
        UserError: there is no such run, card or point, or a file is damaged.
    """
    name, _, stem = text.partition(":")
    run = RunFolder(name).existing()
    there = sorted(path.name.removesuffix(CARD) for path in run.path.glob(f"*{CARD}"))
    if not stem:
        if len(there) > 1 and SEED_SCORES not in there:
            raise UserError(
                f"{run.path} has several cards; name one of them: {', '.join(f'{name}:{s}' for s in there)}"
            )
        stem = SEED_SCORES if SEED_SCORES in there or not there else there[0]
    if stem not in there:
        known = f" There are: {', '.join(f'{name}:{other}' for other in there)}." if there else ""
        raise UserError(f"no {run.path / stem}{CARD}: evaluation.py writes it with --card.{known}")
    card = read_card(run.path, stem)
    chosen = point if point in card["points"] or card["task"] == "cam" else ""  # masks have one point
    counts = read_counts(run.path, stem, chosen or card["main"])
    settings, seed = _settings(run)
    if settings is not None:
        settings["scored"] = [stem, card["task"], card["list"]]
    return ScoredRun(text, counts, card["list"], settings, seed)


def _settings(run: RunFolder) -> tuple[dict[str, Any] | None, int | None]:
    """The configuration of a run without its seed, and the seed."""
    if not run.config.is_file():
        return None, None
    content = read_yaml(run.config)
    if not isinstance(content.get("runtime"), dict):
        return None, None
    return content, content["runtime"].pop("seed", None)


def aligned(runs: Sequence[ScoredRun]) -> list[ScoredRun]:
    """The runs with their images in the order of the first.

    Raises:
        UserError: they were scored on different images, classes or masks.
    """
    first = runs[0]
    found = []
    for run in runs:
        if run.counts.labels != first.counts.labels:
            raise UserError(f"{first.title} and {run.title} are of different classes")
        differing = set(first.counts.ids) ^ set(run.counts.ids)
        if differing:
            raise UserError(
                f"{first.title} (list {first.list_name}) and {run.title} (list {run.list_name}) were scored on "
                f"different images, such as {preview(sorted(differing), 3)}. Score both with the same --list"
            )
        counts = run.counts.ordered(first.counts.ids)
        wrong = np.flatnonzero((counts.truth[REGION] != first.counts.truth[REGION]).any(axis=1))
        if len(wrong):
            raise UserError(
                f"{first.title} and {run.title} were scored against different masks, as of {counts.ids[wrong[0]]} "
                f"({len(wrong)} images). Score both with the same --gt_dir"
            )
        found.append(replace(run, counts=counts))
    return found


def grouped(runs: Sequence[ScoredRun]) -> list[Group]:
    """The runs in groups, in the order of their first ones."""
    found: list[list[ScoredRun]] = []
    for run in runs:
        alike = (own for own in found if run.settings is not None and own[0].settings == run.settings)
        own = next((own for own in alike if run.seed not in [other.seed for other in own]), None)
        if own is None:
            found.append([run])
        else:
            own.append(run)
    return [group_of(own) for own in found]


def group_of(runs: Sequence[ScoredRun]) -> Group:
    """Runs as a group, with their draws."""
    totals, labels, images = [], [], []
    for run in runs:
        both = [plain_totals(run.counts), drawn_totals(run.counts)]
        totals.append([means(total, present_labels(run.counts)) for total in both])
        labels.append(np.concatenate([label_scores(total)["IoU"] for total in both]))
        images.append(image_scores(run.counts))
    by_name = {
        name: np.stack([np.concatenate([plain[name], drawn[name]]) for plain, drawn in totals]) for name in totals[0][0]
    }
    return Group(list(runs), by_name, np.stack(labels), np.stack(images))


def image_scores(counts: PerImage) -> np.ndarray:
    """Mean IoU of each image over the labels in its mask or prediction, percent (N,)."""
    truth, predicted, correct = counts.truth[REGION], counts.predicted[REGION], counts.correct[REGION]
    union = truth + predicted - correct
    return 100 * (correct / np.maximum(union, 1)).sum(axis=1) / np.maximum((union > 0).sum(axis=1), 1)


def difference(group: Group, base: Group) -> dict[str, Interval]:
    """How much a group is above another: each mean of `common.score.means.MEANS`, in percent points."""
    return {name: _interval(own.mean(axis=0) - base.means[name].mean(axis=0)) for name, own in group.means.items()}


def label_differences(group: Group, base: Group) -> dict[str, Interval]:
    """How much the IoU of each label is above that of another group; labels without pixels are left out."""
    values = group.labels.mean(axis=0) - base.labels.mean(axis=0)
    names = group.runs[0].counts.labels
    return {name: _interval(own) for name, own in zip(names, values.T, strict=True) if np.isfinite(own[0])}


def _interval(values: np.ndarray) -> Interval:
    """Of a score of the images themselves and of the draws, (1 + R,)."""
    return interval(float(values[0]), values[1:])
