"""Tries single runs, pairs and rules on images with true masks, which are not those that are reported."""

import functools
import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.data.dataset import ImageSet, class_names
from common.data.lists import find_list, read_list
from common.masks.from_seeds import require_maps
from common.run.errors import UserError, preview
from common.run.files import write_json
from common.run.folder import RunFolder
from common.run.processes import Processes
from common.run.progress import progress
from common.score.counts import SweepCounts
from common.score.images import scored_images
from methods.fusion.config import RULES, FusionConfig, Run
from methods.fusion.fusing import fuse
from methods.fusion.jobs import Inputs, read_runs


@dataclass(frozen=True)
class Trial:
    """Runs, by their places, and the rule that fuses them; empty for a single run."""

    runs: tuple[int, ...]
    how: str


def trials(count: int) -> list[Trial]:
    """All single runs, and all pairs under each rule but the vote, which for two runs is their mean."""
    single = [Trial((place,), "") for place in range(count)]
    pairs = itertools.combinations(range(count), 2)
    return single + [Trial(pair, how) for pair in pairs for how in RULES if how != "vote"]


def search(runs: Sequence[Run], list_name: str, config: FusionConfig, run: RunFolder, processes: Processes) -> None:
    """Scores all trials, prints them, best first, and writes them into the run folder as ``search.json``.

    Runs of a pair have the same weight.

    Raises:
        UserError: the list has images that are reported, or lacks true masks or seeds.
    """
    images = scored_images(ImageSet, config.data, list_name, config.eval)
    refuse_reported(images, config.infer.eval_list)
    for source in runs:
        require_maps(images, source.folder, "the inference script of the run's method, with --dict")
    classes = len(class_names(config.data))
    tried = trials(len(runs))
    counts = [SweepCounts(classes + 1, config.eval.grid()) for _ in tried]
    share = processes.shard(images.unique())
    for index in progress(share, "search", processes.is_main):
        seeds = read_runs(runs, Inputs(images.ids[index], images.file(index), classes))
        mask = images.load_mask(index)
        for trial, count in zip(tried, counts, strict=True):
            chosen = [seeds[place] for place in trial.runs]
            thresholds = [runs[place].threshold for place in trial.runs]
            is_fused = trial.how and chosen[0]
            count.add(fuse(chosen, trial.how, [0.5, 0.5], thresholds) if is_fused else chosen[0], mask)
    by_process = processes.gather_objects(counts)
    totals = [functools.reduce(operator.add, of_trial) for of_trial in zip(*by_process, strict=True)]
    if processes.is_main:
        _report(runs, tried, totals, images, run)


def refuse_reported(images: ImageSet, reported: str) -> None:
    """Makes sure that a search sees no image of the list whose score is reported.

    Raises:
        UserError: it would; some of the images are named.
    """
    if not reported:
        return
    scored = read_list(find_list(reported, images.config.dataset, images.root), images.config.dataset)
    shared = sorted(set(scored) & set(images.ids))
    if shared:
        raise UserError(
            f"--search {images.list_name}: {len(shared)} of its images are in infer.eval_list={reported}, which is "
            f"reported: {preview(shared, 3)}. Search on other images, or report another list"
        )


def _report(
    runs: Sequence[Run], tried: Sequence[Trial], counts: Sequence[SweepCounts], images: ImageSet, run: RunFolder
) -> None:
    rows: list[dict[str, Any]] = []
    for trial, count in zip(tried, counts, strict=True):
        miou = count.scores().miou
        best = int(miou.argmax())
        rows.append({
            "runs": [str(runs[place].folder) for place in trial.runs], "how": trial.how, "mIoU": float(miou[best]),
            "threshold": float(count.thresholds[best]),
        })  # fmt: skip
    rows.sort(key=lambda row: -row["mIoU"])
    file = run.path / "search.json"
    write_json(file, {"list": images.list_name, "images": len(images.unique()), "unit": "percent", "trials": rows})
    print(f"{len(images.unique())} images of {images.list_name!r}, each trial at its best threshold:")
    for row in rows:
        how = row["how"] or "alone"
        print(f"  {row['mIoU']:6.2f} mIoU at {row['threshold']:.2f}  {how:>9}  {' '.join(row['runs'])}")
    fused = next(row for row in rows if row["how"])
    print(f"written: {file}\nbest fusion: --how {fused['how']} {' '.join(fused['runs'])}")
