"""The ViT segmenter's training step, and the teacher that corrects noisy masks."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.data.classes import IGNORE_LABEL
from common.masks.losses import cross_entropy
from common.tensors import size_of
from common.train.step import TrainingStep
from methods.vitseg.config import TeacherConfig
from methods.vitseg.model import VitSeg


class VitSegStep(TrainingStep):
    """Model and loss as one module that maps a batch to losses; what DistributedDataParallel wraps."""

    terms: Sequence[str] = ("seg",)

    def __init__(self, model: VitSeg) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """One training step's losses.

        Args:
            images: (B, 3, S, S).
            targets: uint8 (B, S, S): 0 background, class index + 1, 255 ignore.

        Returns:
            ``total`` to minimise, and ``seg``, the cross-entropy at the images' size.
        """
        loss = cross_entropy(upsampled(self.model(images), size_of(images)), targets)
        return {"total": loss, "seg": loss}


def upsampled(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (B, L, h, w) as float32 at the size (H, W) of their images, bilinear.

    Two products with the weights of the interpolation: on CPUs a forward and backward pass takes half the time of
    `F.interpolate`, and on GPUs the gradients of two equal runs are equal, which those of `F.interpolate` are not.
    """
    if size_of(logits) == size:  # of an image that was padded to whole patches
        return logits.float()
    rows, columns = (_bilinear(*lengths, logits.device) for lengths in zip(size_of(logits), size, strict=True))
    with torch.autocast(logits.device.type, enabled=False):
        return rows @ (logits.float() @ columns.T)  # (H, h) (B, L, h, w) (w, W)


def _bilinear(length: int, new: int, device: torch.device) -> Tensor:
    """The weights (new, length) with which old places enter the new ones of a bilinear interpolation."""
    places = torch.eye(length, device=device)[None]
    return F.interpolate(places, size=new, mode="linear", align_corners=False)[0].T


class Teacher:
    """The moving average of a network, equal on all processes."""

    def __init__(self, model: VitSeg, config: TeacherConfig) -> None:
        self.config = config
        self.network = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Moves towards the network, after a step: t <- m t + (1 - m) s for every tensor."""
        for own, other in zip(self.network.parameters(), model.parameters(), strict=True):
            own.lerp_(other, 1 - self.config.momentum)

    @torch.no_grad()
    def corrected(self, images: Tensor, targets: Tensor, epoch: int) -> Tensor:
        """Targets uint8 (B, S, S) with the teacher's label wherever it is confident, also where they ignore a pixel.

        Pixels at the right and bottom that only pad an image (all of a row or column ignored) stay ignored.
        """
        if epoch < self.config.from_epoch:
            return targets
        probability, label = upsampled(self.network(images), size_of(images)).softmax(1).max(1)
        ignored = targets == IGNORE_LABEL
        padding = ignored.all(1, keepdim=True) | ignored.all(2, keepdim=True)
        replaced = (probability >= self.config.confidence) & ~padding
        return torch.where(replaced, label.to(targets.dtype), targets)

    def state_dict(self) -> dict[str, Any]:
        """Its weights, for a checkpoint."""
        return self.network.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts them back."""
        self.network.load_state_dict(state)
