"""Locates the objects of a split by a DeiT: boxes, their scores, and the file of boxes."""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from common.data.cub import CUBImages
from common.data.loader import start_worker
from common.run.device import Runtime
from common.run.files import atomic_write
from common.run.pool import usable_workers
from common.run.progress import progress
from common.score.boxes import BoxFile
from methods.crt.boxes import cam_box, overlap, true_box
from methods.crt.localization import PERCENTAGES, TOP, Located, Verdict, judge, scores
from methods.crt.max_box import LARGEST, Sweep, box_sweep, hit_intervals, max_box_scores, tuned_hits
from methods.crt.model import DeiTBranch
from methods.crt.wsol_config import WSOLEvalConfig
from methods.crt.wsol_model import class_cams
from methods.crt.wsol_views import SquareImages

COLUMNS = ("id", "width", "height", "rank", "class", "is_true", "x1", "y1", "x2", "y2", "iou")


@dataclass(frozen=True)
class Finding:
    """The result of an image, and its verdict.

    Attributes:
        index: of the image in its set.
        size: (width, height) of the image in pixels; boxes are in pixels of the square.
        cam: of the true class, float32 (g, g).
        sweep: boxes at every threshold; None if they were not asked for.
    """

    index: int
    size: tuple[int, int]
    located: Located
    verdict: Verdict
    cam: np.ndarray
    sweep: Sweep | None = None


@torch.inference_mode()
def locate(
    deit: DeiTBranch, images: CUBImages, config: WSOLEvalConfig, side: int, runtime: Runtime, title: str,
    sweep: bool = False,
) -> list[Finding]:  # fmt: skip
    """Locates the objects of a split; all processes share the work, in the same batches for any number of processes.

    Args:
        deit: in evaluation mode.
        side: of the square that images are brought to.
        title: of the progress bar.
        sweep: whether the true class's boxes are found at every threshold, too.

    Returns:
        A finding for each image, in their order, on all processes.

    Raises:
        UserError: an image is damaged.
    """
    processes = runtime.processes
    order = list(range(len(images)))
    batches = [order[start : start + config.batch_size] for start in range(0, len(order), config.batch_size)]
    batches = processes.shard(batches)
    loader = DataLoader(
        SquareImages(images, side), batch_sampler=batches, generator=torch.Generator(), worker_init_fn=start_worker,
        num_workers=usable_workers(min(runtime.config.num_workers, len(batches))),
        pin_memory=runtime.device.type == "cuda",
    )  # fmt: skip
    found = []
    for indices, pixels, sizes in progress(loader, title, processes.is_main):
        labels = torch.from_numpy(images.targets[indices.numpy()])
        with runtime.autocast():
            logits, cams = class_cams(deit, pixels.to(runtime.device, non_blocking=True))  # B C; B C g g
        top = logits.sort(dim=1, descending=True, stable=True).indices[:, :TOP].cpu()
        wanted = torch.cat([top, labels[:, None]], dim=1)  # B k+1
        maps = cams[torch.arange(len(wanted))[:, None], wanted].cpu().numpy()  # B k+1 g g
        for index, size, classes, own in zip(indices.tolist(), sizes.tolist(), top.numpy(), maps, strict=True):
            boxes = np.stack([cam_box(cam, side, config.cam_threshold) for cam in own])
            truth = true_box(images.boxes[index], size, side)[None]
            located = Located(classes, boxes[:-1], int(images.targets[index]), boxes[-1], truth)
            at_all = box_sweep(own[-1], side, truth) if sweep else None
            found.append(Finding(index, tuple(size), located, judge(located), own[-1].copy(), at_all))
    everyone = [finding for part in processes.gather_objects(found) for finding in part]
    return sorted(everyone, key=lambda finding: finding.index)


def summary(findings: Sequence[Finding]) -> dict[str, float]:
    """The scores of a split; see `methods.crt.localization.scores`."""
    return scores(finding.verdict for finding in findings)


def sweeps(findings: Sequence[Finding]) -> np.ndarray:
    """The IoUs of findings at every threshold, (images, 2, thresholds)."""
    return np.stack([finding.sweep.ious for finding in findings if finding.sweep is not None])


def with_intervals(findings: Sequence[Finding], tuned: Mapping[str, float] | None) -> dict[str, Any]:
    """The scores of a split and of all thresholds, in percent, and their intervals over images.

    Args:
        tuned: `max_box_scores` of another split, whose thresholds are scored as well.
    """
    own = sweeps(findings)
    found = max_box_scores(own)
    hits = {name: np.array([getattr(finding.verdict, name) for finding in findings]) for name in PERCENTAGES}
    best = tuned_hits(own, found)
    hits |= {"max_box_acc": best["box_acc"], "max_box_acc_v2": best["box_acc_v2"]}
    if tuned is not None:
        at = tuned_hits(own, tuned)
        hits |= at
        found |= {name: 100 * float(values.mean()) for name, values in at.items()}
    return {**summary(findings), **found, "intervals": hit_intervals(hits)}


class BestLoc:
    """The largest Loc@1 of a run so far, in percent; a part of the checkpoint, whose own best is by GT-known."""

    def __init__(self) -> None:
        self.value = -1.0

    def improves(self, value: float) -> bool:
        """Takes in a Loc@1; returns whether it is the largest so far."""
        is_best = value > self.value
        self.value = max(value, self.value)
        return is_best

    def state_dict(self) -> dict[str, float]:
        """The value."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Puts back the result of `state_dict`."""
        self.value = state["value"]


def write_boxes(path: Path, findings: Sequence[Finding], images: CUBImages) -> None:
    """Writes a CSV of boxes, in pixels of the square, with a row for each of an image's first classes.

    The rows of an image are in the order of their ``rank`` (from 1); if the true class is not among them, it has a last
    row without a rank. ``iou`` compares with the true box.
    """
    with atomic_write(path, "w") as file:
        table = csv.writer(file, lineterminator=os.linesep)
        table.writerow(COLUMNS)
        for finding in findings:
            located = finding.located
            name = images.ids[finding.index]
            rows: list[tuple[int | str, int, np.ndarray]] = []
            rows += zip(range(1, TOP + 1), located.top.tolist(), located.top_boxes, strict=False)
            if located.label not in located.top:
                rows.append(("", located.label, located.known_box))
            for rank, label, box in rows:
                iou = overlap(box, located.true_boxes).iou.max()
                is_true = int(label == located.label)
                table.writerow([name, *finding.size, rank, images.classes[label], is_true, *box.tolist(), f"{iou:.6f}"])


def box_file(findings: Sequence[Finding], images: CUBImages, side: int, threshold: float) -> BoxFile:
    """The boxes of a split with their maps at every threshold, as the report shows them.

    Args:
        findings: with sweeps.
        side: of the square.
        threshold: of the findings' boxes.
    """
    located = [finding.located for finding in findings]
    swept = [finding.sweep for finding in findings if finding.sweep is not None]
    return BoxFile(
        ids=np.array([images.ids[finding.index] for finding in findings]),
        side=np.array(side),
        threshold=np.array(float(threshold)),
        labels=np.array([own.label for own in located]),
        first=np.array([own.top[0] for own in located]),
        outcomes=np.array([finding.verdict.outcome for finding in findings]),
        hits=np.array([[getattr(finding.verdict, name) for name in PERCENTAGES] for finding in findings]),
        true_boxes=np.stack([own.true_boxes[0] for own in located]).astype(np.int16),
        first_boxes=np.stack([own.top_boxes[0] for own in located]).astype(np.int16),
        known_boxes=np.stack([own.known_box for own in located]).astype(np.int16),
        known_ious=np.array([finding.verdict.iou for finding in findings]),
        boxes=np.stack([own.boxes for own in swept]).astype(np.int16),
        ious=np.stack([own.ious[LARGEST] for own in swept]).astype(np.float32),
        maps=np.stack([finding.cam for finding in findings]).astype(np.float32),
    )
