"""Overlapping square tiles of images, half a side apart, and the map that is merged from the tiles' maps.

Symbols: B images, nh x nw tiles of each in tile-major order (index (row * nw + column) * B + image), t their side in
pixels, g in cells of the maps.
"""

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
    coverage[[0, -1]] = 1
    return coverage.repeat_interleave(half)
