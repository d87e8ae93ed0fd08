"""PSA's random walk by dense matrix powers, as the reference computes it, and this project's, for ``benchmark.py``."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from common.masks.pairs import pair_directions, random_walk, window
from methods.psa.affinity import pair_affinity

RADIUS = 5
BETA = 8.0
STRIDE = 8
CHANNELS = 448


def generated(cells: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
    """Affinities (D, h', w') of smooth features with some noise, and smooth scores (n, h, w)."""
    rng = torch.Generator().manual_seed(0)
    features = 2 * F.interpolate(torch.randn(1, CHANNELS, 6, 8, generator=rng), cells, mode="bicubic")
    features += 0.05 * torch.randn(features.shape, generator=rng)
    scores = F.interpolate(torch.rand(1, count, 5, 6, generator=rng), cells, mode="bilinear")[0]
    return pair_affinity(features, pair_directions(RADIUS), RADIUS)[0], scores


def sparse_walk(scores: Tensor, affinity: Tensor, rounds: int) -> Tensor:
    """The walk of this project."""
    return random_walk(scores, affinity, pair_directions(RADIUS), RADIUS, BETA, rounds)


def dense_walk(scores: Tensor, affinity: Tensor, rounds: int) -> Tensor:
    """The walk by squaring a dense matrix (hw, hw)."""
    count, height, width = scores.shape
    places = torch.arange(height * width, device=scores.device).view(height, width)
    source = window(places, RADIUS).flatten()
    matrix = torch.eye(height * width, device=scores.device)
    for direction, values in zip(pair_directions(RADIUS), affinity.flatten(1), strict=True):
        other = window(places, RADIUS, direction).flatten()
        matrix[source, other] = matrix[other, source] = values
    matrix = matrix**BETA
    matrix /= matrix.sum(0, keepdim=True)
    for _ in range(rounds):
        matrix = matrix @ matrix
    return (scores.flatten(1) @ matrix).view(count, height, width)


def labels(scores: Tensor, height: int, width: int) -> Tensor:
    """The largest score's label at the image's size."""
    full = F.interpolate(scores[None], scale_factor=STRIDE, mode="bilinear", align_corners=False)[0]
    return full[:, :height, :width].argmax(0)


def fastest(work: Callable[[], Tensor], turns: int) -> tuple[float, Tensor]:
    """Seconds of the fastest turn after a first one, and the result."""
    result = work()
    times = []
    for _ in range(turns):
        start = time.perf_counter()
        result = work()
        if result.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times), result
