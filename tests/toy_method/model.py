"""The toy's network: a ViT without class tokens, whose head makes class maps of the patches."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.nets.load import Coverage, load_checked
from common.nets.options import ViTConfig
from common.nets.vit import ClassMaps, ViTBackbone, resize_position_grid
from common.tensors import size_of


class Toy(ViTBackbone):
    """Patch embedding and blocks under timm's names, position embedding and head."""

    def __init__(self, config: ViTConfig, num_classes: int) -> None:
        """Random weights.

        Args:
            num_classes: C, without background.
        """
        super().__init__(config)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid**2, self.embed_dim))
        self.head = nn.Conv2d(self.embed_dim, num_classes, 1)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def load_imagenet(self, state: Mapping[str, Tensor]) -> Coverage:
        """Starts from an ImageNet DeiT; its class token and head are left out."""
        usable = {name: value for name, value in state.items() if not name.startswith(("cls_token", "head."))}
        usable["pos_embed"] = resize_position_grid(state["pos_embed"][:, 1:], self.grid, self.grid)
        return load_checked(self, usable, "the ImageNet checkpoint", ("head.",))

    def forward(self, images: Tensor) -> Tensor:
        """Class maps S (B, C, h, w) of images (B, 3, H, W)."""
        patches = self.embed_patches(images)  # B D h w
        tokens = patches.flatten(2).transpose(1, 2) + resize_position_grid(self.pos_embed, *size_of(patches))  # B N D
        for block in self.blocks:
            tokens, _ = block(tokens)
        return self.head(tokens.transpose(1, 2).unflatten(2, size_of(patches)))

    def foreground_maps(self, images: Tensor) -> ClassMaps:
        """CAMs relu(S) (B, C, h, w), not normalised, and class logits (B, C) of images (B, 3, H, W)."""
        maps = self(images)
        return ClassMaps(maps.relu(), maps.mean((-2, -1)))
