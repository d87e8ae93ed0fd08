"""LFCA, DiG's locality fusion cross-attention from the classifier's queries to the diffusion model's features.

Two LFCA work on the same features; parameter names are the released checkpoint's. Symbols: B images, C classes,
D width of the classifier, F channels of the features at one timestep (D_f), K timesteps, N = h*w patches.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.nets.layers import DropPath
from methods.dig.config import LFCA_HEADS, check_lfca_width

DROP_PATH = 0.1  # fixed in the reference, whatever the classifier's own rate


class FeatureShape(NamedTuple):
    """The shape of the features X (B, K*F, h, w); the defaults are the released models'.

    Attributes:
        timesteps: K.
        channels: F, the sum of `UNetConfig.tap_channels`.
    """

    timesteps: int = 5
    channels: int = 1024


RELEASED_FEATURES = FeatureShape()


class FeatureBlock(nn.Module):
    """Residual block that maps X to keys and values; `convolved_inputs` gives its two convolutions of X."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        self.convbnrelu1 = nn.Sequential(
            nn.Conv2d(entering, leaving, 3, padding=1, bias=False), nn.GroupNorm(1, leaving), nn.ReLU()
        )
        self.convbn2 = nn.Sequential(
            nn.Conv2d(leaving, leaving, 3, padding=1, bias=False), nn.GroupNorm(1, leaving)
        )  # fmt: skip
        self.branch = nn.Conv2d(entering, leaving, 1, bias=False)

    def forward(self, convolved: Tensor, branch: Tensor) -> Tensor:
        """X after the 3x3 and the 1x1 convolution, each (B, F, h, w), to kv (B, F, h, w)."""
        _, norm, relu = self.convbnrelu1
        return F.relu(self.convbn2(relu(norm(convolved))) + branch)


def convolved_inputs(blocks: Sequence[FeatureBlock], x: Tensor, joint: bool | None = None) -> list[tuple[Tensor, ...]]:
    """The inputs of each block's `FeatureBlock.forward`: X (B, K*F, h, w) after its 3x3 and its 1x1 convolution.

    Args:
        blocks: of the same size.
        joint: whether all blocks' kernels are applied as one, which reads X once; the numbers are the same. None: on
            accelerators only; on CPUs joining the kernels (0.4 GB) takes longer than the convolutions of a small batch.
    """
    kernels: list[list[Tensor]] = [
        [block.get_parameter("convbnrelu1.0.weight") for block in blocks], [block.branch.weight for block in blocks],
    ]  # fmt: skip
    if joint is None:
        joint = x.device.type != "cpu"
    whole: list[Sequence[Tensor]] = []
    for each in kernels:
        if joint:
            whole.append(F.conv2d(x, torch.cat(each), padding="same").chunk(len(blocks), dim=1))
        else:
            whole.append([F.conv2d(x, kernel, padding="same") for kernel in each])
    return list(zip(*whole, strict=True))


class LFCA(nn.Module):
    """Cross-attention from the tokens of a classifier's block to diffusion features."""

    def __init__(self, dim: int, features: FeatureShape = RELEASED_FEATURES) -> None:
        """Random weights, drawn as the reference draws them.

        Args:
            dim: D.

        Raises:
            UserError: a width does not divide into the heads.
        """
        super().__init__()
        inner = features.channels
        check_lfca_width(dim, inner)
        self.diff_init = FeatureBlock(features.timesteps * inner, inner)
        self.norm_k = nn.LayerNorm(dim, eps=1e-6)
        self.norm_v = nn.LayerNorm(inner, eps=1e-6)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Conv2d(inner, dim, 1)
        self.value = nn.Conv2d(inner, inner, 3, padding=1)
        self.mlp_c0 = nn.Linear(inner, dim)
        self.norm_c1 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp_c1 = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.mlp_p0 = nn.Conv2d(inner, inner, 3, padding=1)
        self.norm_p1 = nn.GroupNorm(1, inner, eps=1e-6)
        self.mlp_p1 = nn.Sequential(nn.Conv2d(inner, 4 * inner, 1), nn.GELU(), nn.Conv2d(4 * inner, inner, 1))
        self.drop_path = DropPath(DROP_PATH)
        self._draw_weights()

    def _draw_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for convolution in (self.key, self.value):
            nn.init.xavier_uniform_(convolution.weight)
        for name in ("0.weight", "2.weight"):
            nn.init.trunc_normal_(self.mlp_p1.get_parameter(name), std=0.02)

    def forward(self, kv: Tensor, queries: Tensor, num_tokens: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Fuses.

        Args:
            kv: the output of `FeatureBlock` (B, F, h', w').
            queries: q (B, C+N, D) of a block of the classifier, heads side by side, not scaled.
            num_tokens: C.
            grid: (h, w) of the N patches.

        Returns:
            Class tokens (B, C, D) and a map (B, F, h', w').
        """
        attended = self._attend(kv, queries)  # B C+N F
        residual = queries[:, :num_tokens]
        classes = self.mlp_c0(attended[:, :num_tokens]) + residual
        classes = classes + self.mlp_c1(self.norm_c1(classes))
        patches = self.mlp_p0(attended[:, num_tokens:].transpose(1, 2).unflatten(2, grid))  # B F h w
        if grid != tuple(kv.shape[-2:]):
            patches = F.interpolate(patches, size=kv.shape[-2:], mode="bilinear", align_corners=False)
        patches = kv + self.drop_path(patches)
        return classes, patches + self.drop_path(self.mlp_p1(self.norm_p1(patches)))

    def _attend(self, kv: Tensor, queries: Tensor) -> Tensor:
        """Eight heads of 48 for queries and keys (across the classifier's six of 64), of 128 for values: (B, T, F)."""
        q = self.norm_k(self.query(queries))  # norm_k serves queries and keys
        k = self.norm_k(self.key(kv).flatten(2).transpose(1, 2))  # B h'w' D
        v = self.norm_v(self.value(kv).flatten(2).transpose(1, 2))  # B h'w' F
        q, k, v = (part.unflatten(2, (LFCA_HEADS, -1)).transpose(1, 2) for part in (q, k, v))  # B heads T d
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
