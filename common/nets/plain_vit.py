"""A ViT with the one class token of its architecture: patch features for decoders and classifiers on them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.nets.load import Coverage, load_checked
from common.nets.options import ViTConfig
from common.nets.pretrained import backbone_state
from common.nets.vit import ViTBackbone
from common.tensors import size_of


class PlainViT(ViTBackbone):
    """The architecture as it is, under timm's names, without a classifier.

    Attributes:
        needs_class_token: whether a backbone without a class token gets one.
    """

    needs_class_token = False

    def __init__(self, config: ViTConfig) -> None:
        """Random weights."""
        super().__init__(config)
        self.num_tokens = int(self.has_class_token or self.needs_class_token)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dim), requires_grad=bool(self.num_tokens))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, self.embed_dim))
        self.norm = self.last_norm()
        self.add_layers(config)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.settle_positions(self.pos_embed)
        self.settle_tokens(self.cls_token)

    def add_layers(self, config: ViTConfig) -> None:
        """Adds a method's layers, before tokens and positions are drawn; none here."""

    def load_imagenet(self, state: Mapping[str, Tensor]) -> Coverage:
        """Starts from a backbone's weights.

        Raises:
            UserError: they are another network's.
        """
        return load_checked(self, backbone_state(state, self), "the backbone's weights")

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (B, T, D) of images (B, 3, H, W) entering the first block, and the patch grid (h, w)."""
        patches = self.embed_patches(images)  # B D h w
        grid = size_of(patches)
        tokens = patches.flatten(2).transpose(1, 2) + self.resize_positions(self.pos_embed[:, 1:], *grid)
        own = (self.cls_token + self.pos_embed[:, :1]).to(tokens.dtype).expand(len(images), -1, -1)
        return self.enter(torch.cat([own[:, : self.num_tokens], tokens], dim=1)), grid

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (B, T, D) after the last block and the norm, patches from ``first_patch`` on, and the grid (h, w)."""
        tokens, grid = self.embed(images)
        for block in self.blocks_at(grid):
            tokens, _ = block(tokens)
        return self.norm(tokens), grid
