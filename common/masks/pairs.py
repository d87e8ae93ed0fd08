"""Pairs of neighbouring pixels, their affinity labels, and the random walk along their affinities (PSA and IRN).

A pair is a source pixel and one of D directions (dy, dx) of a half-plane within a radius r. Sources are the pixels
whose neighbours are all inside the map: of h x w the rows [0, h - rf) and columns [rf, w - rf), with rf = r - 1. So
pairs of which both ends lie near the left, right or lower border are missing, as in the references (PSA:
tool/pyutils.py, get_indices_of_pairs; IRN: misc/indexing.py, PathIndex). Values of pairs are a tensor
(D, h - rf, w - 2 rf).
"""

import functools
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from common.data.classes import IGNORE_LABEL

TAIL = 1e-9  # of the coefficients that sum to 1: far below the rounding of float32

Direction = tuple[int, int]


class PairLabels(NamedTuple):
    """Pairs of one class and pairs of two, bool (B, D, h - rf, w - 2 rf); ignored pixels are in none."""

    background: Tensor
    foreground: Tensor
    negative: Tensor


def pair_directions(radius: int) -> list[Direction]:
    """The directions (dy, dx) shorter than the radius, one of each opposite two: to the right, then row by row down."""
    steps = range(1 - radius, radius)
    below = [(dy, dx) for dy in range(1, radius) for dx in steps if dx**2 + dy**2 < radius**2]
    return [(0, dx) for dx in range(1, radius)] + below


def window(maps: Tensor, radius: int, direction: Direction = (0, 0)) -> Tensor:
    """The values (..., h - rf, w - 2 rf) of maps (..., h, w) at the sources, moved by a direction; a view."""
    reach = radius - 1
    dy, dx = direction
    height = max(maps.shape[-2] - reach, 0)
    width = max(maps.shape[-1] - 2 * reach, 0)
    return maps[..., dy : dy + height, reach + dx : reach + dx + width]


def windows(maps: Tensor, directions: Sequence[Direction], radius: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For each direction the values at both ends of its pairs, views of maps (..., h, w)."""
    source = window(maps, radius)
    for direction in directions:
        yield source, window(maps, radius, direction)


def pair_labels(labels: Tensor, directions: Sequence[Direction], radius: int) -> PairLabels:
    """Affinity labels of label maps (B, h, w), integers with 0 for background and 255 for ignore."""
    source = window(labels, radius).unsqueeze(1)  # B 1 h' w'
    other = torch.stack([window(labels, radius, direction) for direction in directions], dim=1)
    same = source == other
    valid = (source != IGNORE_LABEL) & (other != IGNORE_LABEL)
    background = source == 0
    return PairLabels(same & background, same & valid & ~background, ~same & valid)


@torch.no_grad()
def random_walk(
    maps: Tensor, affinity: Tensor, directions: Sequence[Direction], radius: int, beta: float, log2_rounds: int
) -> Tensor:
    """Maps after 2^t rounds of the walk: maps * T^(2^t) with T = W^beta / its column sums.

    W is symmetric: the affinity where there is a pair, 1 on the diagonal, 0 elsewhere; so a round replaces each pixel
    by the weighted mean of its neighbourhood. The reference squares the dense T t times; here T is sparse, of at most
    2 D + 1 entries a pixel, and its power is a sum of about 6 * 2^(t/2) Chebyshev polynomials (see `_times_power`). In
    float64, which costs no more time: in float32 the rounding of hundreds of rounds adds up to 1.5e-4.

    Args:
        maps: (n, h, w), of the classes present only: a map of zeros stays one.
        affinity: (D, h - rf, w - 2 rf) in [0, 1].
        beta: exponent of the affinities.
        log2_rounds: t.

    Returns:
        float32 (n, h, w).
    """
    count, height, width = maps.shape
    order = sorted(range(len(directions)), key=directions.__getitem__)  # a row of T has its columns ascending
    directions = tuple(directions[number] for number in order)
    affinity = affinity[order]
    with torch.autocast(maps.device.type, enabled=False):
        weights = maps.new_zeros((height, width, 2 * len(directions) + 1), dtype=torch.float64)
        _fill(weights, affinity.double().pow(beta), directions, radius)
        weights /= weights.sum(-1, keepdim=True)
        rows, columns, pairs = _pattern(height, width, directions, radius, maps.device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
            size = (height * width, height * width)
            transition = torch.sparse_csr_tensor(rows, columns, weights[pairs], size, check_invariants=False)
        walked = _times_power(transition, maps.double().flatten(1).T.contiguous(), 2**log2_rounds)
    return walked.T.reshape(count, height, width).float()


def _fill(weights: Tensor, values: Tensor, directions: Sequence[Direction], radius: int) -> None:
    """Writes values (D, h - rf, w - 2 rf) of pairs, and 1 for the pixel itself, to weights (h, w, 2 D + 1).

    The last axis holds the pixel's neighbours, in the order of their places in the map where the directions are sorted.
    """
    by_neighbour = weights.permute(2, 0, 1)
    middle = len(directions)
    by_neighbour[middle] = 1
    for number, (direction, value) in enumerate(zip(directions, values, strict=True), start=1):
        window(by_neighbour[middle + number], radius).copy_(value)
        window(by_neighbour[middle - number], radius, direction).copy_(value)


@functools.lru_cache(maxsize=32)
def _pattern(
    height: int, width: int, directions: tuple[Direction, ...], radius: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Places of T's entries: row pointers (hw + 1), columns (nnz), and a mask of the weights (h, w, 2 D + 1).

    Indices have 32 bits: MKL takes half the time with them.
    """
    pairs = torch.zeros(height, width, 2 * len(directions) + 1, dtype=torch.bool)
    _fill(pairs, torch.ones(len(directions), 1, 1, dtype=torch.bool), directions, radius)
    forward = [dy * width + dx for dy, dx in directions]
    offsets = torch.tensor([-offset for offset in reversed(forward)] + [0] + forward)
    columns = (torch.arange(height * width).view(height, width, 1) + offsets)[pairs]
    rows = torch.zeros(height * width + 1, dtype=torch.int32)
    rows[1:] = pairs.sum(-1).flatten().cumsum(0)
    return rows.to(device), columns.int().to(device), pairs.to(device)


def _times_power(matrix: Tensor, vectors: Tensor, exponent: int) -> Tensor:
    """matrix^exponent @ vectors for a stochastic matrix that is similar to a symmetric one (eigenvalues in [-1, 1]).

    x^s is a sum of Chebyshev polynomials whose coefficients are those of a random walk of s steps on the integers; all
    beyond about 6 sqrt(s) are dropped (Sachdeva and Vishnoi, "Faster Algorithms via Approximation Theory", 2014,
    theorem 3.3). For s = 256 that is 96 products of the matrix instead of 256, and less rounding.
    """
    coefficients = _power_coefficients(exponent)
    before = vectors
    now = matrix @ vectors
    result = coefficients[0] * before + coefficients[1] * now
    for coefficient in coefficients[2:]:
        before, now = now, torch.addmm(before, matrix, now, beta=-1, alpha=2)
        if coefficient:
            result.add_(now, alpha=coefficient)
    return result


@functools.lru_cache(maxsize=32)
def _power_coefficients(exponent: int) -> tuple[float, ...]:
    """c_k with x^s = sum of c_k T_k(x), until the rest sums to less than `TAIL`; at least two."""
    walks = [math.comb(exponent, (exponent - k) // 2) if (exponent - k) % 2 == 0 else 0 for k in range(exponent + 1)]
    coefficients = [(1 if k == 0 else 2) * count / 2**exponent for k, count in enumerate(walks)]
    degree = exponent
    tail = 0.0
    while degree > 1 and tail + coefficients[degree] < TAIL:
        tail += coefficients[degree]
        degree -= 1
    return tuple(coefficients[: degree + 1])
