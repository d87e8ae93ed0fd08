"""IRN's network: a ResNet, a branch for class boundaries and one for displacements to instance centroids.

Parameter names are those of the released checkpoints (reference: net/resnet50_irn.py); the backbone is ``resnet50``,
whichever ResNet it is. Symbols: B images, c channels, h x w = 1/4 of the image's size, rounded up.
"""

import fnmatch
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.nets.load import Coverage
from common.nets.resnet import ResNet
from common.tensors import size_of
from methods.irn.config import IRNModelConfig

STRIDES = (2, 2, 2, 1)  # of the backbone: stage 5 stays at 1/16
# Entries of the reference's files besides the unique tensors: other names for them, and constants.
ALIASES = ("stage?.*", "backbone.*", "edge_layers.*", "dp_layers.*", "fc_dp7.4.*", "path_indices*", "disp_target")


class MeanShift(nn.Module):
    """Subtracts the mean displacement of the training set in evaluation mode; see `methods.irn.displacement`."""

    running_mean: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, c, h, w)."""
        return maps if self.training else maps - self.running_mean.view(1, -1, 1, 1)


class IRN(nn.Module):
    """Maps images to logits of a class boundary and displacements at 1/4 of their size."""

    def __init__(self, config: IRNModelConfig) -> None:
        """Random weights."""
        super().__init__()
        self.resnet50 = ResNet(config, STRIDES, frozen=config.frozen)
        c1, c2, c3, c4, c5 = self.resnet50.channels
        self.fc_edge1 = _layer(c1, 32, 4)
        self.fc_edge2 = _layer(c2, 32, 4)
        self.fc_edge3 = _layer(c3, 32, 4, 2)
        self.fc_edge4 = _layer(c4, 32, 4, 4)
        self.fc_edge5 = _layer(c5, 32, 4, 4)
        self.fc_edge6 = nn.Conv2d(160, 1, 1)
        self.fc_dp1 = _layer(c1, 64, 8)
        self.fc_dp2 = _layer(c2, 128, 16)
        self.fc_dp3 = _layer(c3, 256, 16)
        self.fc_dp4 = _layer(c4, 256, 16, 2)
        self.fc_dp5 = _layer(c5, 256, 16, 2)
        self.fc_dp6 = _layer(768, 256, 16, 2)
        self.fc_dp7 = nn.Sequential(*_layer(448, 256, 16), nn.Conv2d(256, 2, 1, bias=False))
        self.mean_shift = MeanShift(2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Boundary logits (B, 1, h, w) and displacements dy, dx (B, 2, h, w) of ImageNet-normalised images."""
        stages = self.resnet50(images)
        return self._edge(stages), self._displacement(stages)

    def edge(self, images: Tensor) -> Tensor:
        """The boundary logits alone: semantic masks need no more."""
        return self._edge(self.resnet50(images))

    def displacement(self, images: Tensor) -> Tensor:
        """The displacements alone."""
        return self._displacement(self.resnet50(images))

    def load_imagenet(self, weights: Mapping[str, Tensor]) -> Coverage:
        """Loads the backbone; see `ResNet.load_imagenet`."""
        return self.resnet50.load_imagenet(weights)

    def _edge(self, stages: list[Tensor]) -> Tensor:
        branches = self.fc_edge1, self.fc_edge2, self.fc_edge3, self.fc_edge4, self.fc_edge5
        size = size_of(stages[1])
        maps = [_cropped(branch(stage), size) for branch, stage in zip(branches, stages, strict=True)]
        return self.fc_edge6(torch.cat(maps, dim=1))

    def _displacement(self, stages: list[Tensor]) -> Tensor:
        branches = self.fc_dp1, self.fc_dp2, self.fc_dp3, self.fc_dp4, self.fc_dp5
        d1, d2, *deep = (branch(stage) for branch, stage in zip(branches, stages, strict=True))
        joined = self.fc_dp6(torch.cat([_cropped(maps, size_of(deep[0])) for maps in deep], dim=1))
        return self.mean_shift(self.fc_dp7(torch.cat([d1, d2, _cropped(joined, size_of(d2))], dim=1)))


def unique_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint without the reference's second names and constants."""
    return {
        name: value for name, value in state.items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in ALIASES)
    }  # fmt: skip


def _layer(channels: int, width: int, groups: int, scale: int = 1) -> nn.Sequential:
    """1x1 convolution, group norm, upsampling, ReLU."""
    upsample = [nn.Upsample(scale_factor=scale, mode="bilinear", align_corners=False)] if scale > 1 else []
    return nn.Sequential(
        nn.Conv2d(channels, width, 1, bias=False), nn.GroupNorm(groups, width), *upsample, nn.ReLU(inplace=True)
    )


def _cropped(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """The upper left part of upsampled maps (B, c, h, w), which may be a little larger than the maps they join."""
    return maps[..., : size[0], : size[1]]
