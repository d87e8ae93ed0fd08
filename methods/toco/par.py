"""Pixel-adaptive refinement (PAR): spreads masks along the local colour affinities of an image.

Introduced by AFA (Ru et al., CVPR 2022, "Pixel-Adaptive Refinement"); ToCo uses it unchanged. Symbols: B batch, c
masks, N = 8 * dilations neighbours of a pixel.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from common.tensors import sum_of
from methods.toco.config import DILATIONS, ITERATIONS

BANDWIDTH = 0.3  # of both kernels, in standard deviations
POSITION_WEIGHT = 0.01  # share of the distance kernel
EPSILON = 1e-8


class PAR:
    """Refines masks by the affinities of images, which are computed once; float32, without gradients.

    A neighbour n of a pixel has the affinity softmax_n(a) + 0.01 softmax_n(p), with a_n = -mean over colours of
    (|I_n - I| / (0.3 sigma))^2, sigma the standard deviation of the pixel's neighbours; p_n is the same for distances.
    A pixel's affinities therefore sum to 1.01 (reference: model/PAR.py).
    """

    @torch.no_grad()
    def __init__(self, images: Tensor, dilations: Sequence[int] = DILATIONS, iterations: int = ITERATIONS) -> None:
        """Computes the affinities: N * B * h * w numbers, 10 MB for an image of 224 x 224.

        Args:
            images: (B, 3, h, w) in [0, 1].
            dilations: distances of the neighbours in pixels, eight neighbours each.
            iterations: steps of the refinement.
        """
        self.iterations = iterations
        self._margin = max(dilations)
        self._offsets = [
            (dilation * row, dilation * column)
            for dilation in dilations
            for row in (-1, 0, 1)
            for column in (-1, 0, 1)
            if row or column
        ]
        with torch.autocast(images.device.type, enabled=False):
            position = self._position().to(images.device, non_blocking=True)
            self.affinities = self._colour(images.float()).add_(position)  # N B 1 h w

    @torch.no_grad()
    def __call__(self, masks: Tensor) -> Tensor:
        """Refined masks (B, c, h, w).

        Args:
            masks: (B, c, h', w'), of any size; they are brought to the images' size (bilinear, aligned corners).
        """
        size = self.affinities.shape[-2:]
        with torch.autocast(masks.device.type, enabled=False):
            masks = masks.float()
            if masks.shape[-2:] != size:
                masks = F.interpolate(masks, size=size, mode="bilinear", align_corners=True)
            for _ in range(self.iterations):
                refined = masks.new_zeros(masks.shape)
                for affinity, neighbour in zip(self.affinities, self._neighbours(masks), strict=True):
                    refined.addcmul_(affinity, neighbour)
                masks = refined
        return masks

    def _neighbours(self, maps: Tensor) -> Iterator[Tensor]:
        """Yields for each of the N offsets the maps (B, c, h, w) of the neighbours there; the border is replicated."""
        height, width = maps.shape[-2:]
        padded = F.pad(maps, [self._margin] * 4, mode="replicate")
        for row, column in self._offsets:
            top = self._margin + row
            left = self._margin + column
            yield padded[..., top : top + height, left : left + width]

    def _colour(self, images: Tensor) -> Tensor:
        """softmax_n(a), (N, B, 1, h, w)."""
        neighbours = list(self._neighbours(images))  # views: one padded copy in all
        mean = sum_of(neighbours) / len(neighbours)
        variance = sum_of((neighbour - mean).square_() for neighbour in neighbours) / (len(neighbours) - 1)
        width = variance.sqrt_().add_(EPSILON).mul_(BANDWIDTH)  # B 3 h w
        logits = [(neighbour - images).div_(width).square_().mean(1, keepdim=True) for neighbour in neighbours]
        return torch.stack(logits).neg_().softmax(0)

    def _position(self) -> Tensor:
        """0.01 softmax_n(p), (N, 1, 1, 1, 1)."""
        distance = torch.tensor([math.hypot(*offset) for offset in self._offsets])
        logits = -(distance / (distance.std() + EPSILON) / BANDWIDTH).square()
        return POSITION_WEIGHT * logits.softmax(0).view(-1, 1, 1, 1, 1)
