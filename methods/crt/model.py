"""CRT's two networks: a DeiT that sees tiles and passes its blocks several times, and a ResNet that refines it.

Symbols: B images or tiles, C classes, D width, N = g*g patches of a tile, T = 1 + N tokens, the class token first.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from common.nets.attention import MapRequest
from common.nets.load import Coverage, load_checked
from common.nets.options import ResNetConfig, ViTConfig
from common.nets.pretrained import backbone_state, start_weights
from common.nets.resnet import ResNet
from common.nets.tiles import cut_tiles, merge_tiles, tile_grid
from common.nets.vit import ViTBackbone
from common.tensors import size_of
from methods.crt.config import CRTModelConfig

STRIDES = (2, 2, 2, 1)  # of the CNN: its maps stay at 1/16, a DeiT patch
FIXED_STAGES = 3  # of the CNN: the stem, layer1 and layer2; its maps are cut from the graph after layer2


class BranchConfigs(Protocol):
    """The configuration of a model of both networks, with a section for each."""

    cnn: ResNetConfig
    deit: ViTConfig


class DeiTBranch(ViTBackbone):
    """timm's DeiT under timm's names, with a convolution of the patch tokens for a head.

    The class token only gives attention. `forward` is `maps`.
    """

    num_tokens = 1

    def __init__(self, config: ViTConfig, num_classes: int, passes: int = 3, outer_residual: bool = True) -> None:
        """Random weights.

        Args:
            num_classes: C, without background.
            passes: number of passes of the tokens through the blocks, with the same weights.
            outer_residual: whether a pass adds the output of the blocks F to the tokens, x + F(x), although F has the
                identity in it already; without it x becomes F(x), which with one pass is a plain DeiT.
        """
        super().__init__(config)
        self.passes = passes
        self.outer_residual = outer_residual
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, self.embed_dim))
        self.norm = self.last_norm()
        self.head = nn.Conv2d(self.embed_dim, num_classes, 3, padding=1)  # PyTorch's initialisation, as the reference's
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.settle_positions(self.pos_embed)

    def load_imagenet(self, state: Mapping[str, Tensor]) -> Coverage:
        """Starts from an ImageNet DeiT; the head stays random, positions of another tile are resized.

        Raises:
            UserError: it is no DeiT of this size with one class token.
        """
        own = {name: value for name, value in self.state_dict().items() if name.startswith("head.")}
        return load_checked(self, {**own, **backbone_state(state, self)}, "the ImageNet checkpoint")

    def embed(self, images: Tensor) -> Tensor:
        """Tokens (B, T, D) of images (B, 3, t, t)."""
        patches = self.embed_patches(images).flatten(2).transpose(1, 2)  # B N D
        class_tokens = self.cls_token.to(patches.dtype).expand(len(images), -1, -1)
        return self.enter(torch.cat([class_tokens, patches], dim=1) + self.pos_embed)

    def run_pass(self, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        """One pass through the blocks, with the outer residual if the network has it: (B, T, D) to (B, T, D).

        Args:
            rows: the class token's head-averaged attention of every block is added to it, (B, 1, T); not with
                gradients.
        """
        x = tokens
        request = None if rows is None else MapRequest(rows=1)
        for block in self.blocks_at((self.grid, self.grid)):
            x, attention = block(x, request)
            if rows is not None:
                rows += attention
        return tokens + x if self.outer_residual else x

    def encode(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        """Tokens (B, T, D) after all passes and the norm; ``rows`` as in `run_pass`."""
        tokens = self.embed(images)
        for _ in range(self.passes):
            tokens = self.run_pass(tokens, rows)
        return self.norm(tokens)

    def read_head(self, tokens: Tensor) -> Tensor:
        """Maps (B, C, g, g), not rectified, of encoded tokens (B, T, D)."""
        return self.head(tokens[:, self.first_patch :].transpose(1, 2).unflatten(2, (self.grid, self.grid)))

    def maps(self, images: Tensor) -> Tensor:
        """Maps (B, C, g, g), not rectified, of images (B, 3, t, t), without attention maps."""
        return self.read_head(self.encode(images))

    forward = maps

    @torch.no_grad()
    def maps_with_attention(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The maps of `maps`, and the class token's attention to the patches.

        Returns:
            Maps (B, C, g, g), and float32 (B, 1, g, g): means over the heads, summed over the blocks and passes; with
            the attention of the class token to itself a map would sum to ``depth * passes``.
        """
        count = self.first_patch + self.grid**2
        rows = self.pos_embed.new_zeros(len(images), 1, count, dtype=torch.float32)
        maps = self.read_head(self.encode(images, rows))
        return maps, rows[..., self.first_patch :].unflatten(2, (self.grid, self.grid))


class CNNBranch(nn.Module):
    """A ResNet with a linear classifier of its last stage's cells, which gives the class maps.

    Its batch norms use the running statistics. The stem, layer1 and layer2 are never trained.
    """

    def __init__(self, config: ResNetConfig, num_classes: int) -> None:
        """Random weights.

        Args:
            num_classes: C, without background.
        """
        super().__init__()
        self.backbone = ResNet(config, STRIDES, frozen=FIXED_STAGES)
        self.classifier = nn.Conv2d(self.backbone.channels[-1], num_classes, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Maps (B, C, h, w), not rectified, at 1/16 of the size (rounded up) of images (B, 3, H, W)."""
        return self.classifier(self.backbone(images)[-1])

    def load_imagenet(self, weights: Mapping[str, Tensor]) -> Coverage:
        """Loads the backbone; see `ResNet.load_imagenet`."""
        return self.backbone.load_imagenet(weights)


class CRT(nn.Module):
    """Both networks side by side, for training; seeds come from the DeiT alone."""

    def __init__(self, config: CRTModelConfig, num_classes: int) -> None:
        """Random weights.

        Raises:
            UserError: half a tile is no whole number of patches.
        """
        super().__init__()
        self.cnn = CNNBranch(config.cnn, num_classes)
        self.deit = tiled_deit(config, num_classes)
        self.tile = config.deit.img_size

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class maps of the CNN and of the DeiT, whose tiles' maps are merged; not rectified.

        Args:
            images: (B, 3, S, S), S a multiple of half a tile.

        Returns:
            (B, C, S / 16, S / 16) and (B, C, S / p, S / p) for patches of p pixels, as published 16: cam1 and cam2.
        """
        grid = tile_grid(*size_of(images), self.tile)
        return self.cnn(images), merge_tiles(self.deit(cut_tiles(images, self.tile)).float(), grid)


class Branches(Protocol):
    """A model of both networks."""

    cnn: CNNBranch
    deit: DeiTBranch


def start_branches(model: Branches, config: BranchConfigs, is_resumed: bool) -> str:
    """Starts both networks of a model from ImageNet, if a training begins; returns their origin, for the log."""
    starts = [
        start_weights(model.cnn, config.cnn.arch, config.cnn.pretrained, is_resumed),
        start_weights(model.deit, config.deit.arch, config.deit.pretrained, is_resumed, config.deit),
    ]
    return "; ".join(dict.fromkeys(starts))


def tiled_deit(config: CRTModelConfig, num_classes: int) -> DeiTBranch:
    """The DeiT that sees tiles.

    Raises:
        UserError: as `CRTModelConfig.check`.
    """
    config.check()
    return DeiTBranch(config.deit, num_classes, config.passes)


def released_deit(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The DeiT of a checkpoint: of this project, with both networks, or of the authors, with the DeiT alone."""
    return _part(state, "deit.")


def released_cnn(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The CNN of a checkpoint: of this project, or of the authors, which repeats every tensor.

    The authors' backbone is ``resnet50.*`` whichever ResNet it is, with aliases ``stage*``, ``backbone.0`` and others.
    """
    state = _part(state, "cnn.")
    if not any(name.startswith("resnet50.") for name in state):
        return state
    kept = {name: value for name, value in state.items() if name.startswith(("resnet50.", "classifier."))}
    return {
        f"backbone.{name.removeprefix('resnet50.')}" if name.startswith("resnet50.") else name: value
        for name, value in kept.items()
    }


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names have the prefix, without it; all tensors if no name has the prefix."""
    part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return part or dict(state)
