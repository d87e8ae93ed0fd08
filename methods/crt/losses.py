"""CRT's losses: both branches classify, and their class maps are drawn towards each other.

Symbols: B images, C classes, S side of the images; cam1 of the CNN, cam2 of the DeiT (reference: step/train_cam.py).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from common.tensors import size_of, sum_of
from common.train.step import TrainingStep
from methods.crt.config import LossConfig
from methods.crt.model import CRT

LOSS_TERMS = ("cls_cnn", "cls_deit", "consistency")


def pooled_logits(cams: Tensor) -> Tensor:
    """Class logits (B, C) of class maps (B, C, h, w): their means."""
    return cams.mean((-2, -1))


def consistency_loss(first: Tensor, second: Tensor, size: tuple[int, int]) -> Tensor:
    """L3: the mean absolute difference of two networks' maps of all classes, enlarged to the images' size.

    Enlarging (bilinear, corners aligned) is linear: if both maps have one grid, their difference is enlarged instead.

    Args:
        first: (B, C, h, w) of any grid; with gradients.
        second: likewise.
        size: of the images.
    """
    parts = (first - second,) if first.shape == second.shape else (first, -second)
    difference = sum_of(F.interpolate(part, size, mode="bilinear", align_corners=True) for part in parts)
    return difference.abs().mean()


class CRTStep(TrainingStep):
    """Model and losses as one module that maps a batch to losses; what DistributedDataParallel wraps."""

    terms = LOSS_TERMS
    logits = ("cnn", "deit")

    def __init__(self, model: CRT, config: LossConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def forward(self, images: Tensor, labels: Tensor, epoch: int) -> dict[str, Tensor]:
        """One training step's losses.

        Args:
            images: (B, 3, S, S), ImageNet-normalised.
            labels: multi-hot (B, C).
            epoch: from 0.

        Returns:
            ``total`` to minimise, the terms `LOSS_TERMS` before their weights (a term that is off is 0), and detached
            ``logits_cnn``, ``logits_deit`` (B, C).
        """
        cam_cnn, cam_deit = (cam.float() for cam in self.model(images))  # B C h w
        logits_cnn = pooled_logits(cam_cnn)
        logits_deit = pooled_logits(cam_deit)
        terms = {
            "cls_cnn": F.multilabel_soft_margin_loss(logits_cnn, labels),
            "cls_deit": F.multilabel_soft_margin_loss(logits_deit, labels),
        }
        total = terms["cls_cnn"] + terms["cls_deit"]
        if self.config.is_consistent(epoch):
            terms["consistency"] = consistency_loss(cam_cnn, cam_deit, size_of(images))
            total = total + self.config.cam_lambda * terms["consistency"]
        else:
            terms["consistency"] = torch.zeros_like(total)
        return {"total": total, **terms, "logits_cnn": logits_cnn.detach(), "logits_deit": logits_deit.detach()}
