"""Tiles of images and the maps they make together, against loops over tiles."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.run.errors import UserError
from methods.crt.tiles import cut_tiles, merge_tiles, padded_side, tile_grid

GRIDS = [(1, 1), (1, 3), (2, 2), (4, 1), (3, 5)]


def looped(maps: Tensor, grid: tuple[int, int], images: int) -> Tensor:
    """What `merge_tiles` is to give, by its definition."""
    (rows, columns), half = grid, maps.shape[-1] // 2
    total = count = 0.0
    for number, tile in enumerate(maps.split(images)):
        row, column = divmod(number, columns)
        around = half * column, half * (columns - 1 - column), half * row, half * (rows - 1 - row)
        total, count = total + F.pad(tile, around), count + F.pad(torch.ones_like(tile), around)
    return total / count


def test_tiles_are_parts_of_the_images_tile_major() -> None:
    """Tile (i, j) of image b is at (i * nw + j) * B + b, and moved by half a side."""
    images = torch.arange(2 * 3 * 16 * 24).view(2, 3, 16, 24)
    tiles = cut_tiles(images, 8)
    assert tile_grid(16, 24, 8) == (3, 5) and tiles.shape == (3 * 5 * 2, 3, 8, 8)
    for row in range(3):
        for column in range(5):
            for image in range(2):
                expected = images[image, :, 4 * row : 4 * row + 8, 4 * column : 4 * column + 8]
                assert torch.equal(tiles[(row * 5 + column) * 2 + image], expected)


@pytest.mark.parametrize("grid", GRIDS)
def test_merging_is_the_mean_over_the_tiles_of_a_cell(grid: tuple[int, int]) -> None:
    """And its gradient that of the mean."""
    maps = torch.randn(grid[0] * grid[1] * 2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    merged, expected = merge_tiles(maps, grid), looped(maps, grid, 2)
    torch.testing.assert_close(merged, expected)
    weights = torch.randn_like(expected)
    torch.testing.assert_close(*(torch.autograd.grad((x * weights).sum(), maps)[0] for x in (merged, expected)))


@pytest.mark.parametrize("grid", GRIDS)
def test_tiles_of_one_map_merge_to_it(grid: tuple[int, int]) -> None:
    """Where tiles agree, their mean is what they agree on."""
    whole = torch.randn(2, 3, 4 * (grid[0] + 1), 4 * (grid[1] + 1))
    torch.testing.assert_close(merge_tiles(cut_tiles(whole, 8), grid), whole)


def test_padding_always_enlarges() -> None:
    """The reference's rule at tiles of 224; every tile has pixels of the image, so none is constant."""
    sides = {1: 224, 112: 224, 113: 224, 223: 224, 224: 336, 225: 336, 335: 336, 336: 448, 375: 448, 500: 560}
    assert {side: padded_side(side, 224) for side in sides} == sides
    for side in range(1, 700):
        last = (tile_grid(padded_side(side, 32), 32, 32)[0] - 1) * 16
        assert last < side < padded_side(side, 32)


@pytest.mark.parametrize("size", [(32, 40), (40, 32), (16, 32)])
def test_a_remainder_is_refused(size: tuple[int, int]) -> None:
    """As is an image below a tile."""
    with pytest.raises(UserError, match=f"{size[1]}x{size[0]} pixels cannot be cut into tiles of 32"):
        cut_tiles(torch.zeros(1, 3, *size), 32)
