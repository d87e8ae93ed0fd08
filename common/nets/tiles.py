"""Overlapping tiles of images, and the maps that are merged from the tiles' maps.

Tiles of a network that sees nothing else (CRT's DeiT) are squares, half a side apart, and their maps count as means.
Tiles of a large image (``infer.tile``) bound the memory of any network: they lie evenly, overlap by ``infer.overlap``
or more, and are blended: where tiles overlap, the weight of each falls linearly towards its border.

Symbols: B images, nh x nw tiles of each in tile-major order (index (row * nw + column) * B + image), t their side in
pixels, g in cells of the maps; H x W the size of a large image.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common.run.errors import UserError
from common.tensors import size_of


def padded_side(side: int, tile: int) -> int:
    """The side, in pixels, to which an image is padded for inference: a whole number of half tiles.

    It is always larger than the image, also by half a tile where the image itself fits, unless the image is smaller
    than a tile (reference: deit_cam.py; the additional tiles enter the overlap's mean).
    """
    half = tile // 2
    return max((side // half + 1) * half, tile)


def tile_grid(height: int, width: int, tile: int) -> tuple[int, int]:
    """Rows and columns (nh, nw) of tiles that cover an image exactly.

    Raises:
        UserError: the tiles leave a remainder, or the image is smaller than a tile.
    """
    half = tile // 2
    if min(height, width) < tile or height % half or width % half:
        raise UserError(
            f"an image of {width}x{height} pixels cannot be cut into tiles of {tile}: a side must be at least {tile} "
            f"and a multiple of half of it, {half}"
        )
    return height // half - 1, width // half - 1


def cut_tiles(images: Tensor, tile: int) -> Tensor:
    """Images (B, 3, H, W) to tiles (nh * nw * B, 3, t, t), tile-major.

    Raises:
        UserError: see `tile_grid`.
    """
    tile_grid(*size_of(images), tile)
    windows = images.unfold(2, tile, tile // 2).unfold(3, tile, tile // 2)  # B 3 nh nw t t
    return windows.permute(2, 3, 0, 1, 4, 5).flatten(0, 2)


def merge_tiles(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Merges maps of tiles, of even side g, to maps of their images; where 2 or 4 tiles overlap, their mean counts.

    Args:
        maps: (nh * nw * B, C, g, g), tile-major.
        grid: (nh, nw).

    Returns:
        (B, C, g * (nh + 1) / 2, g * (nw + 1) / 2).
    """
    side = maps.shape[-1]
    tiles = grid[0] * grid[1]
    size = side // 2 * (grid[0] + 1), side // 2 * (grid[1] + 1)
    columns = maps.unflatten(0, (tiles, -1)).permute(1, 2, 3, 4, 0).flatten(1, 3)  # B (C g g) (nh nw)
    rows, across = (_coverage(count, side // 2, maps) for count in grid)
    return F.fold(columns, size, side, stride=side // 2) / (rows[:, None] * across)


def _coverage(count: int, half: int, like: Tensor) -> Tensor:
    """How many of ``count`` tiles in a row cover each cell: 1 at both ends, 2 between."""
    coverage = like.new_full((count + 1,), 2)
    coverage[0] = 1
    coverage[-1] = 1
    return coverage.repeat_interleave(half)


class Span(NamedTuple):
    """A tile along one axis of a large image.

    Attributes:
        start: its first pixel.
        weights: of its pixels in the blend, float32 (t,); those of all tiles add up to 1 at each pixel.
    """

    start: int
    weights: Tensor

    @property
    def stop(self) -> int:
        """The pixel after its last one."""
        return self.start + len(self.weights)

    @property
    def pixels(self) -> slice:
        """Its pixels."""
        return slice(self.start, self.stop)


class Tile(NamedTuple):
    """A tile of a large image."""

    rows: Span
    columns: Span

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom, as Pillow crops an image."""
        return self.columns.start, self.rows.start, self.columns.stop, self.rows.stop

    def weighted(self, maps: Tensor) -> Tensor:
        """Maps (..., h, w) of the tile times its weights."""
        return maps * self.rows.weights.to(maps.device)[:, None] * self.columns.weights.to(maps.device)


def spans(length: int, tile: int, overlap: float) -> list[Span]:
    """The tiles along an axis; one, of weight 1, where the axis is no longer than a tile.

    Args:
        overlap: share of a tile, from 0 to 0.5, that it has in common with the next one at least.
    """
    shared = round(tile * overlap)
    count = max(math.ceil((length - shared) / (tile - shared)), 1)
    side = min(tile, length)
    starts = [round(index * (length - side) / (count - 1)) for index in range(count)] if count > 1 else [0]
    inner = (torch.arange(side) + 0.5) / max(shared, 1)  # from the border on
    raw = []
    for start in starts:
        before = inner.clamp(max=1) if start > 0 else torch.ones(side)
        after = inner.flip(0).clamp(max=1) if start + side < length else torch.ones(side)
        raw.append(torch.minimum(before, after))
    total = torch.zeros(length)
    for start, weights in zip(starts, raw, strict=True):
        total[start : start + side] += weights
    return [Span(start, weights / total[start : start + side]) for start, weights in zip(starts, raw, strict=True)]


def tile_rows(height: int, width: int, tile: int, overlap: float) -> list[list[Tile]]:
    """The tiles of a large image, row by row."""
    columns = spans(width, tile, overlap)
    return [[Tile(rows, column) for column in columns] for rows in spans(height, tile, overlap)]


def blended(tiles: Sequence[Tile], maps_of: Callable[[int], Tensor], size: tuple[int, int]) -> Tensor:
    """Maps (n, H, W) of a large image.

    Args:
        maps_of: gives the maps (n, h, w) of a tile, by its place in ``tiles``.
    """
    total: Tensor | None = None
    for index, tile in enumerate(tiles):
        maps = tile.weighted(maps_of(index))
        total = maps.new_zeros(len(maps), *size) if total is None else total
        total[:, tile.rows.pixels, tile.columns.pixels] += maps
    assert total is not None
    return total


def blended_bands(rows: Sequence[Sequence[Tile]], maps_of: Callable[[Tile], Tensor], width: int) -> Iterator[Tensor]:
    """Yields the blended maps of a large image from top to bottom, as bands (n, h, W) that no further tile touches.

    So no more than a row of tiles is in memory.

    Args:
        maps_of: gives the maps (n, h, w) of a tile.
    """
    rest: Tensor | None = None  # below the band before: what the tiles so far have given there
    for number, row in enumerate(rows):
        top, bottom = row[0].rows.start, row[0].rows.stop
        band: Tensor | None = None
        for tile in row:
            maps = tile.weighted(maps_of(tile))
            band = maps.new_zeros(len(maps), bottom - top, width) if band is None else band
            band[:, :, tile.columns.pixels] += maps
        assert band is not None
        if rest is not None:
            band[:, : rest.shape[1]] += rest
        done = rows[number + 1][0].rows.start - top if number + 1 < len(rows) else bottom - top
        yield band[:, :done]
        rest = band[:, done:].clone()
