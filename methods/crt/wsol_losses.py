"""Losses of CRT's object localisation."""

import torch
import torch.nn.functional as F
from torch import Tensor

from common.train.step import TrainingStep
from methods.crt.losses import LOSS_TERMS, pooled_logits
from methods.crt.wsol_model import WSOL


class WSOLStep(TrainingStep):
    """Model and losses as one module that maps a batch to losses; what DistributedDataParallel wraps."""

    terms = LOSS_TERMS
    logits = ("cnn", "deit")

    def __init__(self, model: WSOL) -> None:
        """See the class."""
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor, consistency: float, share: float) -> dict[str, Tensor]:
        """One training step's losses.

        Args:
            images: (B, 3, S, S).
            labels: one-hot (B, C).
            consistency: weight of the consistency loss.
            share: mean size of the step's micro-batches on all processes, B if they are equal: with it the mean of
                their losses is the mean over the step's images.

        Returns:
            ``total`` to minimise, the terms `LOSS_TERMS` before their weights, ``logits_cnn`` and ``logits_deit``
            (B, C).
        """
        cnn, deit = (maps.float() for maps in self.model(images))
        logits_cnn = pooled_logits(cnn)
        logits_deit = pooled_logits(deit)
        targets = labels.argmax(dim=1)
        cls_cnn, cls_deit = (
            F.cross_entropy(logits, targets, reduction="sum") / share for logits in (logits_cnn, logits_deit)
        )
        with torch.set_grad_enabled(torch.is_grad_enabled() and consistency != 0):
            distance = map_distance(cnn, deit).sum() / share
        total = cls_cnn + cls_deit + consistency * distance
        return {
            "total": total, "cls_cnn": cls_cnn, "cls_deit": cls_deit, "consistency": distance,
            "logits_cnn": logits_cnn, "logits_deit": logits_deit,
        }  # fmt: skip


def map_distance(cnn: Tensor, deit: Tensor) -> Tensor:
    """Mean absolute difference of an image's two maps over all classes and cells, with gradients into both: (B,).

    Args:
        cnn: (B, C, h, w), brought to the DeiT's grid (bilinear) if it has another; as published the grids are equal.
        deit: (B, C, g, g).
    """
    if cnn.shape != deit.shape:
        cnn = F.interpolate(cnn, size=deit.shape[-2:], mode="bilinear", align_corners=False)
    return (cnn - deit).abs().mean(dim=(1, 2, 3))
