"""Losses of segmentation networks."""

import torch.nn.functional as F
from torch import Tensor

from common.data.classes import IGNORE_LABEL
from common.tensors import size_of


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
