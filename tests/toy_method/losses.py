"""The toy's training step: one pass, two loss terms, and the state that one of them reads."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from common.train.step import TrainingStep, weighted_sum
from tests.toy_method.config import LossConfig
from tests.toy_method.model import Toy


class Peaks:
    """For each class a running mean of the largest value of its map, over the images that show it.

    Attributes:
        means: float32 (C,); 0 for a class that no image has shown.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.means = torch.zeros(num_classes, device=device)

    def update(self, peaks: Tensor, labels: Tensor) -> None:
        """Moves the means of the classes that are present a tenth of the way to this batch's mean peaks.

        Args:
            peaks: (B, C), of all processes.
            labels: multi-hot (B, C).
        """
        count = labels.sum(0)  # C
        found = (peaks * labels).sum(0) / count.clamp(min=1)
        self.means = torch.where(count > 0, self.means.lerp(found, 0.1), self.means)

    def state_dict(self) -> dict[str, Tensor]:
        """The state for a checkpoint."""
        return {"means": self.means}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state_dict` returned."""
        self.means.copy_(state["means"])


class ToyStep(TrainingStep):
    """Model and losses as one module that maps a batch to losses; what DistributedDataParallel wraps."""

    terms = ("cls", "peak")
    logits = ("cls",)

    def __init__(
        self, model: Toy, config: LossConfig, peaks: Peaks, gather: Callable[[Tensor], Tensor] = lambda rows: rows
    ) -> None:
        """Composes the step.

        Args:
            gather: concatenates tensors of all processes in rank order, so that all update the same means.
        """
        super().__init__()
        self.model = model
        self.config = config
        self.peaks = peaks
        self._gather = gather

    def forward(self, images: Tensor, labels: Tensor, epoch: int) -> dict[str, Tensor]:
        """One training step's losses.

        Args:
            images: (B, 3, S, S), ImageNet-normalised.
            labels: multi-hot (B, C).
            epoch: from 0.

        Returns:
            ``total`` to minimise, the terms before their weights (one that is off is 0), and detached ``logits_cls``.
        """
        maps = self.model(images).float()  # B C h w
        logits = maps.mean((-2, -1))
        terms = {"cls": F.multilabel_soft_margin_loss(logits, labels), "peak": maps.new_zeros(())}
        if self.config.peak > 0 and epoch >= self.config.peak_from:
            peaks = maps.amax((-2, -1))  # B C
            self.peaks.update(self._gather(peaks.detach()), self._gather(labels))
            terms["peak"] = ((self.peaks.means - peaks).relu() * labels).mean()
        return {"total": weighted_sum(terms, {"peak": self.config.peak}), **terms, "logits_cls": logits.detach()}
