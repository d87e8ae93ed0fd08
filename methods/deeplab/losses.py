"""DeepLab's training step: cross-entropy of every scale's logits and of their maximum."""

from collections.abc import Sequence

from torch import Tensor

from common.masks.losses import cross_entropy
from common.tensors import sum_of
from common.train.step import TrainingStep
from methods.deeplab.model import DeepLab


def loss_terms(scales: Sequence[float]) -> list[str]:
    """Names of the losses, in the order of `DeepLab.outputs`."""
    return ["x1", *(f"x{scale:g}" for scale in scales), *(["max"] if scales else [])]


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
