"""AffinityNet: features that are alike for neighbouring cells of one class (PSA, section 3.2).

Symbols: B images, h x w cells (an image's size / stride), c channels, D directions; pairs are those of
`common.masks.pairs`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.masks.pairs import Direction, window, windows
from common.tensors import Context
from methods.psa.config import STRIDE

HEADS = ("f8_3", "f8_4", "f8_5", "f9")


class AffinityNet(nn.Module):
    """Heads that reduce and join three maps of a trunk, which a subclass adds.

    Parameter names are the reference's (network/resnet38_aff.py).

    Attributes:
        stride: side of a cell in pixels of the image.
        frozen: names of the trunk's first modules, which are not trained; its batch norms are not trained either.
    """

    stride: int = STRIDE
    frozen: tuple[str, ...] = ()

    def __init__(self, channels: Sequence[int], widths: Sequence[int]) -> None:
        """Makes the heads.

        Args:
            channels: of the trunk's three maps.
            widths: channels of the reduced maps.
        """
        super().__init__()
        self.f8_3, self.f8_4, self.f8_5 = (
            nn.Conv2d(inputs, width, 1, bias=False) for inputs, width in zip(channels, widths, strict=True)
        )
        self.f9 = nn.Conv2d(sum(widths), sum(widths), 1, bias=False)
        for head in (self.f8_3, self.f8_4, self.f8_5):
            nn.init.kaiming_normal_(head.weight)
        nn.init.xavier_uniform_(self.f9.weight, gain=4)

    def stages(self, images: Tensor) -> Sequence[Tensor]:
        """The trunk's three maps (B, channels[i], h, w) of ImageNet-normalised images."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, c, h, w) of images (B, 3, H, W) whose sides are multiples of the stride."""
        heads = self.f8_3, self.f8_4, self.f8_5
        reduced = [F.elu(head(maps)) for head, maps in zip(heads, self.stages(images), strict=True)]
        return F.elu(self.f9(torch.cat(reduced, dim=1)))

    def freeze(self) -> None:
        """Takes the first modules and all batch norms of the trunk out of the training."""
        for name in self.frozen:
            self.get_submodule(name).requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)


def pair_affinity(features: Tensor, directions: Sequence[Direction], radius: int) -> Tensor:
    """exp(-mean over channels |difference|) of every pair: float32 (B, D, h - rf, w - 2 rf) of (B, c, h, w)."""
    with torch.autocast(features.device.type, enabled=False):
        features = features.float().contiguous(memory_format=torch.channels_last)  # ten times faster on CPUs
        return _MeanDistance.apply(features, tuple(directions), radius).neg().exp()


class _DistanceContext(Context):
    """Keeps the arguments of a call of `_MeanDistance`."""

    directions: tuple[Direction, ...]
    radius: int


class _MeanDistance(torch.autograd.Function):
    """Mean over channels of |difference|. Keeps the features alone, where autograd would keep D times as much."""

    @staticmethod
    def forward(ctx: _DistanceContext, features: Tensor, directions: tuple[Direction, ...], radius: int) -> Tensor:
        ctx.save_for_backward(features)
        ctx.directions = directions
        ctx.radius = radius
        return torch.stack([(one - other).abs_().mean(1) for one, other in windows(features, directions, radius)], 1)

    @staticmethod
    def backward(ctx: _DistanceContext, gradient: Tensor) -> tuple[Tensor, None, None]:
        (features,) = ctx.saved_tensors
        radius = ctx.radius
        result = torch.zeros_like(features)
        source = window(features, radius)
        for number, direction in enumerate(ctx.directions):
            part = (source - window(features, radius, direction)).sign_()
            part *= gradient[:, number : number + 1] / features.shape[1]
            window(result, radius).add_(part)
            window(result, radius, direction).sub_(part)
        return result, None, None
