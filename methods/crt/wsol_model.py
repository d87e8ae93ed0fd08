"""The networks of CRT's object localisation: a DeiT for the boxes, and a ResNet that refines its maps in training."""

import torch
from torch import Tensor, nn

from methods.crt.losses import pooled_logits
from methods.crt.model import CNNBranch, DeiTBranch
from methods.crt.wsol_config import WSOLModelConfig


class WSOL(nn.Module):
    """Both networks side by side. The DeiT sees the whole image and goes through its blocks once, as in TS-CAM."""

    def __init__(self, config: WSOLModelConfig, num_classes: int) -> None:
        """Random weights."""
        super().__init__()
        self.cnn = CNNBranch(config.cnn, num_classes)
        self.deit = wsol_deit(config, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class maps of the CNN and of the DeiT, not rectified; their spatial means are the logits.

        Args:
            images: (B, 3, S, S).

        Returns:
            (B, C, S / 16, S / 16) and (B, C, g, g), of one size where a patch has 16 pixels.
        """
        return self.cnn(images), self.deit(images)


def wsol_deit(config: WSOLModelConfig, num_classes: int) -> DeiTBranch:
    """The DeiT alone, for evaluation and released checkpoints."""
    return DeiTBranch(config.deit, num_classes, passes=1, outer_residual=False)


@torch.no_grad()
def class_cams(deit: DeiTBranch, images: Tensor) -> tuple[Tensor, Tensor]:
    """The DeiT's logits and CAMs of images (reference: the evaluation of TS-CAM's deit_small).

    Args:
        images: (B, 3, S, S).

    Returns:
        Logits (B, C) and CAMs (B, C, g, g): the maps times the class token's attention to the patches (means over the
        heads, summed over the blocks), rectified.
    """
    maps, attention = deit.maps_with_attention(images)
    maps = maps.float()
    return pooled_logits(maps), (attention * maps).relu()
