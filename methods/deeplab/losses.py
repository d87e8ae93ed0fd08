"""DeepLab's training step: cross-entropy of every scale's logits and of their maximum."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from common.data.classes import IGNORE_LABEL
from common.tensors import size_of, sum_of
from common.train.step import TrainingStep
from methods.deeplab.model import DeepLab


def loss_terms(scales: Sequence[float]) -> list[str]:
    """Names of the losses, in the order of `DeepLab.outputs`."""
    return ["x1", *(f"x{scale:g}" for scale in scales), *(["max"] if scales else [])]


def resized_targets(targets: Tensor, size: tuple[int, int]) -> Tensor:
    """Targets uint8 (B, H, W) at another size, by PIL's nearest pixel: floor((i + 0.5) in / out)."""
    return F.interpolate(targets[:, None], size, mode="nearest-exact")[:, 0]


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over all pixels of the micro-batch that are not ignored; 0 if all are.

    Args:
        logits: (B, C + 1, h, w).
        targets: uint8 (B, H, W), brought to the logits' size.
    """
    target = resized_targets(targets, size_of(logits)).long()
    total = F.cross_entropy(logits.float(), target, ignore_index=IGNORE_LABEL, reduction="sum")
    return total / (target != IGNORE_LABEL).sum().clamp(min=1)


class DeepLabStep(TrainingStep):
    """Model and losses as one module that maps a batch to losses; what DistributedDataParallel wraps."""

    def __init__(self, model: DeepLab) -> None:
        super().__init__()
        self.model = model
        self.terms = loss_terms(model.scales)

    def forward(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """One training step's losses.

        Args:
            images: (B, 3, S, S).
            targets: uint8 (B, S, S): 0 background, class index + 1, 255 ignore.

        Returns:
            ``total`` to minimise, the sum of the terms, and the terms `loss_terms`.
        """
        losses = [cross_entropy(logits, targets) for logits in self.model.outputs(images)]
        return {"total": sum_of(losses), **dict(zip(self.terms, losses, strict=True))}
