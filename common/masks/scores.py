"""Scores of a segmentation network's masks by DeepLab's definitions, and its validation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.data.classes import BACKGROUND
from common.data.dataset import ImageSet
from common.data.whole import image_batches
from common.masks.network import MaskFolders, report_masks, segment_logits, submit_masks
from common.masks.options import SegmentViews
from common.run.device import Runtime
from common.run.files import write_json
from common.run.folder import MASK_SCORES, RunFolder
from common.score.counts import ConfusionCounts
from common.score.files import Prediction
from common.score.options import EvalConfig
from common.score.report import score_in_memory


@dataclass(frozen=True)
class SegmentationScores:
    """Scores as fractions.

    Attributes:
        pixel_accuracy: share of right pixels.
        mean_accuracy: mean recall over the classes that occur in the truth.
        frequency_weighted_iou: IoU weighted by the share of a class in the truth.
        mean_iou: mean IoU over the classes that occur in the truth.
        class_iou: float64 (C + 1,), background first; NaN for a class that neither occurs nor is predicted.
    """

    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    mean_iou: float
    class_iou: np.ndarray

    def __str__(self) -> str:
        return (
            f"{100 * self.mean_iou:.2f} mean IoU, {100 * self.pixel_accuracy:.2f} pixel accuracy, "
            f"{100 * self.mean_accuracy:.2f} mean accuracy, {100 * self.frequency_weighted_iou:.2f} "
            "frequency-weighted IoU"
        )

    def in_percent(self, prefix: str = "") -> dict[str, float]:
        """The four means by name."""
        names = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
        return {prefix + name: 100 * getattr(self, name) for name in names}

    def as_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """All scores under the reference's names; None for a class without IoU.

        Args:
            classes: names, background first.
        """
        by_class = zip(classes, self.class_iou.tolist(), strict=True)
        return {
            "Pixel Accuracy": self.pixel_accuracy,
            "Mean Accuracy": self.mean_accuracy,
            "Frequency Weighted IoU": self.frequency_weighted_iou,
            "Mean IoU": self.mean_iou,
            "Class IoU": {name: None if np.isnan(iou) else iou for name, iou in by_class},
        }


def segmentation_scores(counts: ConfusionCounts) -> SegmentationScores:
    """The scores of a confusion matrix (reference: metric.py).

    Unlike the evaluator's mIoU, the mean leaves out all classes that are not in the truth, predicted or not.
    """
    correct = counts.matrix.diagonal().astype(np.float64)
    truth = counts.matrix.sum(axis=1)
    union = truth + counts.matrix[:, :-1].sum(axis=0) - correct
    iou = np.divide(correct, union, out=np.full(len(union), np.nan), where=union > 0)
    there = truth > 0
    return SegmentationScores(
        pixel_accuracy=float(correct.sum() / truth.sum()),
        mean_accuracy=float((correct[there] / truth[there]).mean()),
        frequency_weighted_iou=float((truth[there] * iou[there]).sum() / truth.sum()),
        mean_iou=float(iou[there].mean()),
        class_iou=iou,
    )


def validate(
    logits_of: Callable[[Tensor], Tensor],
    images: ImageSet,
    transform: Callable[[Image.Image], Tensor],
    batch_size: int,
    runtime: Runtime,
) -> SegmentationScores:
    """Scores a network on images with masks, each at its own size; all processes share the work.

    Args:
        logits_of: maps images (b, 3, H, W) to logits (b, C + 1, h, w), background first.
        transform: maps a decoded RGB image to the network's input.
        batch_size: images of one size per forward pass.

    Raises:
        UserError: masks are missing or do not fit their images.
    """
    views = SegmentViews(scales=[1.0], flip="none")
    workers = runtime.config.num_workers
    batches = image_batches(images, batch_size, workers, runtime, lambda image_id: False, "validation", transform)

    def masks() -> Iterator[tuple[str, Prediction]]:
        for indices, pixels in batches:
            with runtime.autocast():
                logits = segment_logits(logits_of, pixels, pixels.shape[-2:], views)  # b C+1 H W
            predicted = logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
            yield from zip((images.ids[index] for index in indices), predicted, strict=True)

    result = score_in_memory(masks(), images, EvalConfig(), "png", runtime.processes, "masks in memory")
    return segmentation_scores(result.confusion)


def report_segmentation(
    folders: MaskFolders, images: ImageSet, run: RunFolder, runtime: Runtime, num_workers: int, submission: str = ""
) -> None:
    """Reports the scores of the masks, also by these definitions (``scores*.json``), and packs the archive if asked.

    Args:
        submission: the competition that the archive for VOC's server is for; empty: none.
    """
    for stem, result in report_masks(folders, images, run, runtime, num_workers).items():
        if runtime.processes.is_main:
            scores = segmentation_scores(result.confusion)
            path = run.scores(stem.replace(MASK_SCORES, "scores"))
            write_json(path, scores.as_dict([BACKGROUND, *result.classes]))
            print(f"{scores}: {path}")
    if submission and runtime.processes.is_main:
        submit_masks(folders, images, run, submission)
