"""Tiles of images and the maps they make together, against loops over tiles."""

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from common.data.transforms import eval_transform
from common.nets.tiles import blended, blended_bands, cut_tiles, merge_tiles, padded_side, spans, tile_grid, tile_rows
from common.nets.vit import ClassMaps
from common.run.errors import UserError
from common.seeds.cam import multi_view, tiled_evidence
from tests.datasets import write_image
from tests.helpers import Scripts, contents

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


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 400), tile=st.integers(32, 120), overlap=st.floats(0, 0.5))
def test_tiles_of_a_large_image_cover_it_once(length: int, tile: int, overlap: float) -> None:
    """Weights add up to 1 at each pixel; neighbours share what is asked for; one tile suffices where it does."""
    found = spans(length, tile, overlap)
    total = torch.zeros(length)
    for span in found:
        total[span.pixels] += span.weights
        assert len(span.weights) == min(tile, length) and span.weights.min() > 0
    torch.testing.assert_close(total, torch.ones(length))
    shared = [first.stop - second.start for first, second in itertools.pairwise(found)]
    assert (len(found) == 1) == (length <= tile) and min(shared, default=tile) >= round(tile * overlap)
    if len(found) == 1:
        assert torch.equal(found[0].weights, torch.ones(length))


def test_blended_maps_of_a_function_of_pixels_are_that_function() -> None:
    """At once and in bands, also where tiles of three rows meet; no seam between tiles that disagree."""
    image = torch.randn(2, 150, 97)
    rows = tile_rows(150, 97, 40, 0.4)
    tiles = [tile for row in rows for tile in row]

    def crop(maps: Tensor, tile) -> Tensor:
        return maps[:, tile.rows.pixels, tile.columns.pixels]

    whole = blended(tiles, lambda index: crop(image, tiles[index]), (150, 97))
    torch.testing.assert_close(whole, image)
    torch.testing.assert_close(torch.cat(list(blended_bands(rows, lambda tile: crop(image, tile), 97)), dim=1), whole)
    levels = {tile: float(number % 2) for number, tile in enumerate(tiles)}
    steps = blended(tiles, lambda index: torch.full((1, 40, 40), levels[tiles[index]]), (150, 97))
    assert steps.min() == 0 and steps.max() == 1
    assert max(float(steps.diff(dim=axis).abs().max()) for axis in (1, 2)) <= 1 / (0.4 * 40) + 1e-6


def test_seeds_of_a_large_image() -> None:
    """A network that looks at each cell alone gives tiles the maps of the whole image; the largest logit counts."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 8, stride=8)

    def network(views: Tensor) -> ClassMaps:
        maps = layer(views).repeat_interleave(8, 2).repeat_interleave(8, 3)  # cells without blur
        return ClassMaps(maps, maps.mean((-2, -1)))

    image = Image.fromarray(torch.randint(0, 256, (160, 96, 3), dtype=torch.uint8).numpy())
    maker = multi_view(network, flip=False)
    with torch.no_grad():
        evidence = tiled_evidence(maker.evidence, image, lambda part: eval_transform(part)[None], 64, 0.5)
        found = maker.seeds(evidence, torch.tensor([[1, 0, 1, 1.0]]))
        whole = maker(eval_transform(image)[None], torch.tensor([[1, 0, 1, 1.0]]))
    torch.testing.assert_close(found.maps[0], whole.maps[0], rtol=1e-3, atol=1e-4)
    assert (found.logits >= whole.logits).all()


@pytest.mark.parametrize("method", ["cti", "crt", "deeplab"])
def test_inference_in_tiles(
    method: str, experiments: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    """Bitwise the same where one tile suffices; with smaller ones other files of the same kind, refused beside them."""
    from tests.test_predict import make_run

    monkeypatch.chdir(tmp_path)
    weights = make_run(method, experiments)
    scripts = Scripts(monkeypatch, experiments / f"{method}.yaml", method)
    extra = () if method == "deeplab" else ("--dict", "infer.eval_list=")
    place = "segs/val" if method == "deeplab" else "dict"
    for name, tile in (("whole", 0), ("one", 200), ("many", 32)):
        assert scripts.infer(name, "--load_pretrained", weights, *extra, f"infer.tile={tile}") == 0
    whole, one, many = (contents(f"experiment/{name}/{place}") for name in ("whole", "one", "many"))
    assert whole == one and whole.keys() == many.keys() and whole != many
    with pytest.raises(UserError, match="tile was nothing, is 32"):
        scripts.infer("whole", "--load_pretrained", weights, *extra, "infer.tile=32")


def test_tocos_cams_take_no_tiles(toco_scripts: Scripts) -> None:
    with pytest.raises(UserError, match=r"infer\.segment\.tile is that of its masks"):
        toco_scripts.infer("x", "--load_pretrained", write_image(Path("x.pth")), "--dict", "infer.tile=64")
