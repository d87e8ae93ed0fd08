"""Paths between neighbouring cells, and the largest value on each path, which turns a boundary into an affinity.

Pairs, sources and windows are those of `common.masks.pairs`; the path of a pair is a thin line from its source to its
other end, both included (IRNet section 4.4; reference: misc/indexing.py, PathIndex).
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from common.masks.pairs import Direction, pair_directions, window
from common.tensors import Context


@functools.lru_cache(maxsize=1024)
def path_cells(direction: Direction) -> tuple[Direction, ...]:
    """The cells (y, x) of a path from (0, 0), less than 1 away from the straight line; the far end comes first."""
    dy, dx = direction
    rows, columns = (range(min(0, end), max(0, end) + 1) for end in direction)
    near = [(y, x) for y in rows for x in columns if (dy * x - dx * y) ** 2 < dy**2 + dx**2]
    return tuple(sorted(near, key=lambda cell: -abs(cell[0]) - abs(cell[1])))  # stable, as the reference's


def path_directions(radius: int) -> list[Direction]:
    """The directions of `pair_directions` in the order of the reference's affinity axis: by the length of the path."""
    return sorted(pair_directions(radius), key=lambda direction: len(path_cells(direction)))


def path_maximum(maps: Tensor, directions: Sequence[Direction], radius: int) -> Tensor:
    """The largest value on the path of every pair.

    Args:
        maps: (B, h, w).
        directions: of the D pairs of a source.
        radius: of the pairs.

    Returns:
        (B, D, h - rf, w - 2 rf); the gradient goes to the (first) largest cell.
    """
    return _PathMaximum.apply(maps, tuple(directions), radius)


class _PathContext(Context):
    """Keeps the arguments of a call of `_PathMaximum`."""

    directions: tuple[Direction, ...]
    radius: int
    shape: torch.Size


class _PathMaximum(torch.autograd.Function):
    """Keeps the number of the largest cell, 1 byte a pair; autograd would keep every cell of every path."""

    @staticmethod
    def forward(ctx: _PathContext, maps: Tensor, directions: tuple[Direction, ...], radius: int) -> Tensor:
        values = []
        places = []
        for direction in directions:
            best, *others = (window(maps, radius, cell) for cell in path_cells(direction))  # B h' w'
            place = torch.zeros_like(best, dtype=torch.uint8)
            for number, value in enumerate(others, start=1):
                place = torch.maximum(place, (value > best).to(torch.uint8) * number)
                best = torch.maximum(best, value)
            values.append(best)
            places.append(place)
        ctx.save_for_backward(*places)
        ctx.directions = directions
        ctx.radius = radius
        ctx.shape = maps.shape
        return torch.stack(values, dim=1)

    @staticmethod
    def backward(ctx: _PathContext, gradient: Tensor) -> tuple[Tensor, None, None]:
        result = gradient.new_zeros(ctx.shape)
        for direction, place, part in zip(ctx.directions, ctx.saved_tensors, gradient.unbind(1), strict=True):
            for number, cell in enumerate(path_cells(direction)):
                window(result, ctx.radius, cell).add_(part * (place == number))
        return result, None, None


def pair_displacements(maps: Tensor, directions: Sequence[Direction], radius: int) -> Tensor:
    """Displacements, of maps (B, 2, h, w), at every pair's source minus those at its other end: (B, 2, D, h', w')."""
    source = window(maps, radius)
    return torch.stack([source - window(maps, radius, direction) for direction in directions], dim=2)
