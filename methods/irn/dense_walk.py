"""IRN's random walk by dense matrix powers, as the reference computes it; ``benchmark.py`` measures it."""

import time

import torch
import torch.nn.functional as F
from torch import Tensor

from common.masks.pairs import pair_directions, window
from methods.irn.config import WalkConfig
from methods.irn.paths import path_maximum
from methods.irn.walk import enlarged, label_map


def generated(cells: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
    """Boundary probabilities (h, w), thin lines on a low ground, and smooth seeds (n, h, w)."""
    rng = torch.Generator().manual_seed(0)
    field = F.interpolate(torch.randn(1, 1, 9, 12, generator=rng), cells, mode="bicubic")[0, 0]
    edge = 0.02 + 0.95 * torch.exp(-((field / 0.12) ** 2)) + 0.02 * torch.rand(cells, generator=rng)
    scores = F.interpolate(torch.rand(1, count, 6, 8, generator=rng), cells, mode="bilinear")[0]
    return edge.clamp(0, 1), (scores - 0.4).clamp(min=0) / 0.6


def transitions(edge: Tensor, config: WalkConfig) -> Tensor:
    """T before it is squared, dense (hw, hw)."""
    height, width = edge.shape
    radius = config.radius
    reach = radius - 1
    directions = pair_directions(radius)
    around = reach, reach, 0, reach
    affinity = 1 - path_maximum(F.pad(edge, around, value=1.0)[None], directions, radius)[0]
    places = torch.arange(height * width, device=edge.device).view(height, width)
    places = F.pad(places, around, value=-1)
    source = window(places, radius).flatten()
    matrix = torch.eye(height * width, device=edge.device)
    for direction, values in zip(directions, affinity.flatten(1), strict=True):
        other = window(places, radius, direction).flatten()
        inside = other >= 0
        pair = source[inside], other[inside]
        matrix[pair] = matrix[pair[1], pair[0]] = values[inside] ** config.beta
    return matrix / matrix.sum(0, keepdim=True)


def squared(matrix: Tensor, times: int) -> tuple[float, Tensor]:
    """Mean seconds of a squaring, and the matrix after ``times`` of them."""
    total = 0.0
    for _ in range(times):
        start = clock()
        matrix = matrix @ matrix
        total += clock() - start
    return total / times, matrix


def mask_of(scores: Tensor, size: tuple[int, int], config: WalkConfig) -> Tensor:
    """The labels, at the image's size."""
    return torch.from_numpy(label_map(enlarged(scores, size), list(range(len(scores))), config.background))


def clock() -> float:
    """Seconds, after the GPU has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
