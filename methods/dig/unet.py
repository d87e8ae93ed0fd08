"""DiG's diffusion network: an unconditional U-Net with a timestep as input, and taps of its decoder.

Parameter names are the released diffusion checkpoint's. Symbols: B rows (images, each with its own timestep), c
channels, E = `UNetConfig.dim`, H x W pixels.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.run.errors import UserError
from common.tensors import required, size_of
from methods.dig.config import NORM_GROUPS, UNetConfig

HEADS = 4  # of both kinds of attention
HEAD_DIM = 32
ALL = slice(None)


class UNetOutput(NamedTuple):
    """The requested outputs; None for an output that was not requested.

    Attributes:
        v: predicted v (rows, 3, H, W).
        features: concatenated taps (rows, F, h, w); F = sum of `UNetConfig.tap_channels`, 1024 by default.
    """

    v: Tensor | None
    features: Tensor | None


class SinusoidalTime(nn.Module):
    """Sines, then cosines, of the timestep at frequencies from 1 to 1/10000."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, t: Tensor) -> Tensor:
        """Timesteps (B,) to embeddings (B, E)."""
        half = self.dim // 2
        # The order of these operations counts in float32: another differs by 3e-5 at large t.
        frequencies = torch.exp(torch.arange(half, device=t.device) * -(math.log(10000) / (half - 1)))
        angles = t[:, None] * frequencies  # B E/2
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class RMSNorm(nn.Module):
    """Scales each position's channel vector to length sqrt(c), then by a learned gain per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, c, H, W) to maps."""
        return F.normalize(x, dim=1) * (self.g * x.shape[1] ** 0.5)


class ConvNorm(nn.Module):
    """3x3 convolution, group norm, optional scale and shift by the timestep, SiLU."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(entering, leaving, 3, padding=1)
        self.norm = nn.GroupNorm(NORM_GROUPS, leaving)

    def forward(self, x: Tensor, scale_shift: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Maps (B, c, H, W) to maps; scale and shift are (B, c', 1, 1)."""
        x = self.norm(self.proj(x))
        if scale_shift is not None:
            scale, shift = scale_shift
            x = x * (1 + scale) + shift
        return F.silu(x)


class ResBlock(nn.Module):
    """Two `ConvNorm`, the first modulated by the timestep, beside an identity or 1x1 path."""

    def __init__(self, entering: int, leaving: int, time_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, 2 * leaving))
        self.block1 = ConvNorm(entering, leaving)
        self.block2 = ConvNorm(leaving, leaving)
        self.res_conv = nn.Conv2d(entering, leaving, 1) if entering != leaving else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Maps (B, c, H, W) and time embeddings (B, 4E) to maps (B, c', H, W)."""
        scale, shift = self.mlp(time)[:, :, None, None].chunk(2, dim=1)  # B c' 1 1
        return self.block2(self.block1(x, (scale, shift))) + self.res_conv(x)


class _Attention(nn.Module):
    """The common part of both kinds of attention: RMSNorm, then queries, keys and values of the heads."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = RMSNorm(dim)
        self.to_qkv = nn.Conv2d(dim, 3 * HEADS * HEAD_DIM, 1, bias=False)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps (B, c, H, W) to q, k, v (B, heads, d, H*W)."""
        return self.to_qkv(self.norm(x)).flatten(2).unflatten(1, (3, HEADS, HEAD_DIM)).unbind(1)


class LinearAttention(_Attention):
    """Attention whose cost grows linearly with the number of positions; the residual is the caller's."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.to_out = nn.Sequential(nn.Conv2d(HEADS * HEAD_DIM, dim, 1), RMSNorm(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, c, H, W) to maps."""
        q, k, v = self.heads(x)  # B heads d N
        q = q.softmax(dim=-2) * HEAD_DIM**-0.5
        k = k.softmax(dim=-1)
        context = k @ v.transpose(-2, -1)  # B heads d d
        out = context.transpose(-2, -1) @ q  # B heads d N
        return self.to_out(out.flatten(1, 2).unflatten(2, x.shape[-2:]))


class FullAttention(_Attention):
    """Softmax attention among all positions, for the coarsest maps; the residual is the caller's."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.to_out = nn.Conv2d(HEADS * HEAD_DIM, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, c, H, W) to maps."""
        q, k, v = (part.transpose(-2, -1) for part in self.heads(x))  # B heads N d
        out = F.scaled_dot_product_attention(q, k, v).transpose(-2, -1)  # B heads d N
        return self.to_out(out.flatten(1, 2).unflatten(2, x.shape[-2:]))


class UNet(nn.Module):
    """The network (names of the released checkpoint's ``model.*``; 35,710,339 parameters by default)."""

    def __init__(self, config: UNetConfig, channels: int = 3) -> None:
        """Random weights.

        Args:
            channels: of the images.
        """
        super().__init__()
        self.config = config
        dim = config.dim
        time_dim = 4 * dim
        deepest = config.stages[-1][1]
        last = len(config.stages) - 1
        self.init_conv = nn.Conv2d(channels, dim, 7, padding=3)
        self.time_mlp = nn.Sequential(
            SinusoidalTime(dim), nn.Linear(dim, time_dim), nn.GELU(), nn.Linear(time_dim, time_dim)
        )
        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        for stage, (entering, leaving) in enumerate(config.stages):
            attention = FullAttention if stage == last else LinearAttention
            down = nn.Conv2d(entering, leaving, 3, padding=1) if stage == last else _halve(entering, leaving)
            self.downs.append(_stage(entering, entering, time_dim, attention, down))
        self.mid_block1 = ResBlock(deepest, deepest, time_dim)
        self.mid_attn = FullAttention(deepest)
        self.mid_block2 = ResBlock(deepest, deepest, time_dim)
        for stage, (leaving, entering) in reversed(list(enumerate(config.stages))):
            attention = FullAttention if stage == last else LinearAttention
            up = nn.Conv2d(entering, leaving, 3, padding=1) if stage == 0 else _double(entering, leaving)
            self.ups.append(_stage(entering + leaving, entering, time_dim, attention, up))
        self.final_res_block = ResBlock(2 * dim, dim, time_dim)
        self.final_conv = nn.Conv2d(dim, channels, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predicts v.

        Args:
            x: noisy images (B, 3, H, W), of [-1, 1] before the noise.
            t: timesteps (B,), whole numbers from 0.

        Returns:
            v (B, 3, H, W).

        Raises:
            UserError: H or W is no multiple of `UNetConfig.stride`.
        """
        return required(self.outputs(x, t).v, "rows of v")

    def features(self, x: Tensor, t: Tensor, grid: tuple[int, int]) -> Tensor:
        """The decoder's taps f0..f4 on a grid (h, w), concatenated: (B, F, h, w). See `outputs`."""
        return required(self.outputs(x, t, grid, v_rows=None).features, "rows of features")

    def outputs(
        self,
        x: Tensor,
        t: Tensor,
        grid: tuple[int, int] | None = None,
        feature_rows: slice = ALL,
        v_rows: slice | None = ALL,
    ) -> UNetOutput:
        """One pass over rows, some of them for their features, others for v.

        Taps: the second middle block and every up stage after its upsampling, resized bilinearly with corners aligned.
        The layers behind the last tap run for ``v_rows`` only.

        Args:
            x: noisy images (B, 3, H, W).
            t: timesteps (B,).
            grid: (h, w) of the features; None: no features.
            feature_rows: the rows whose features are requested.
            v_rows: the rows whose v is requested; None: no v.

        Raises:
            UserError: H or W is no multiple of `UNetConfig.stride`.
        """
        self._check_size(x)
        time = self.time_mlp(t)  # B 4E
        x = stem = self.init_conv(x)  # B E H W
        skips: list[Tensor] = []
        taps: list[Tensor] = []

        def tap(x: Tensor) -> None:
            if grid is not None:
                taps.append(F.interpolate(x[feature_rows], size=grid, mode="bilinear", align_corners=True))

        for stage in self.downs:
            first, second, attention, down = stage.children()
            x = first(x, time)
            skips.append(x)
            x = second(x, time)
            x = attention(x) + x
            skips.append(x)
            x = down(x)
        x = self.mid_block1(x, time)
        x = self.mid_attn(x) + x
        x = self.mid_block2(x, time)
        tap(x)
        for stage in self.ups:
            first, second, attention, up = stage.children()
            x = first(torch.cat([x, skips.pop()], dim=1), time)
            x = second(torch.cat([x, skips.pop()], dim=1), time)
            x = up(attention(x) + x)
            tap(x)
        v = None
        if v_rows is not None:
            x = torch.cat([x[v_rows], stem[v_rows]], dim=1)
            v = self.final_conv(self.final_res_block(x, time[v_rows]))
        return UNetOutput(v, torch.cat(taps, dim=1) if taps else None)

    def _check_size(self, x: Tensor) -> None:
        height, width = size_of(x)
        stride = self.config.stride
        if not height or not width or height % stride or width % stride:
            raise UserError(
                f"the diffusion network takes images whose sides are multiples of {stride} pixels, not {width}x{height}"
                " (width x height); set the image size to such a multiple"
            )


def _stage(entering: int, leaving: int, time_dim: int, attention: type[_Attention], resize: nn.Module) -> nn.ModuleList:
    """Two residual blocks with ``entering`` channels each, attention, and the change of resolution."""
    blocks = (ResBlock(entering, leaving, time_dim) for _ in range(2))
    return nn.ModuleList([*blocks, attention(leaving), resize])


def _halve(entering: int, leaving: int) -> nn.Sequential:
    """Moves 2x2 pixels into the channels of one, then a 1x1 convolution."""
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * entering, leaving, 1))


def _double(entering: int, leaving: int) -> nn.Sequential:
    """Twice the size by repetition, then a 3x3 convolution."""
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(entering, leaving, 3, padding=1))
