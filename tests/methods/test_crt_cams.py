"""CRT's CAMs over scales, mirror images and tiles, against one image, one scale and one tile at a time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from common.data.transforms import eval_transform
from common.nets.options import ViTConfig
from common.nets.tiles import padded_side
from methods.crt.cams import crt_cams, image_and_views, presence_logits, regrouped, scaled_size, seed_maps, view_cams
from methods.crt.config import CRTInferConfig, CRTModelConfig
from methods.crt.model import DeiTBranch, tiled_deit

TILE, PATCH, CLASSES = 32, 8, 4
SIZES = [(20, 30), (32, 50), (70, 33)]  # below a tile; a whole number of half tiles on one side; neither


@pytest.fixture(scope="module")
def model() -> DeiTBranch:
    """A tiny network."""
    torch.manual_seed(0)
    config = ViTConfig(img_size=TILE, patch_size=PATCH, embed_dim=32, depth=2, num_heads=2, drop_path=0.0)
    return tiled_deit(CRTModelConfig(deit=config), CLASSES).eval()


def random_photo(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """An image of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


@torch.no_grad()
def slow_cams(model: DeiTBranch, image: Tensor, flip: bool) -> Tensor:
    """CAMs (K, h, w) of one image (3, H, W), with loops over tiles."""
    total = 0.0
    for mirrored in (False, True) if flip else (False,):
        height, width = (padded_side(side, TILE) for side in image.shape[-2:])
        canvas = torch.zeros(3, height, width)
        canvas[:, : image.shape[1], : image.shape[2]] = image.flip(-1) if mirrored else image
        values = torch.zeros(CLASSES, height // PATCH, width // PATCH)
        counts = torch.zeros_like(values)
        for top in range(0, height - TILE + 1, TILE // 2):
            for left in range(0, width - TILE + 1, TILE // 2):
                maps, rows = model.maps_with_attention(canvas[None, :, top : top + TILE, left : left + TILE])
                place = np.s_[:, top // PATCH : (top + TILE) // PATCH, left // PATCH : (left + TILE) // PATCH]
                values[place] += (maps * rows)[0]
                counts[place] += 1
        cells = [-(-side // PATCH) for side in image.shape[-2:]]
        cams = (values / counts)[:, : cells[0], : cells[1]].clamp(min=0)
        total = total + (cams.flip(-1) if mirrored else cams)
    return total


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("tiles", [1, 5, 1000])
def test_views_of_any_size_share_passes(model: DeiTBranch, flip: bool, tiles: int) -> None:
    """Two images at a time; each as if it were alone, however many tiles make a pass."""
    views = [torch.stack([eval_transform(random_photo(size, seed)) for seed in (1, 2)]) for size in SIZES]
    for view, found in zip(views, view_cams(model, views, tiles, flip), strict=True):
        expected = torch.stack([slow_cams(model, image, flip) for image in view])
        torch.testing.assert_close(found.cams, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scales", [[1.0, 0.5, 1.5], [0.75]])
def test_cams_are_sums_over_scales_of_the_labelled_classes(model: DeiTBranch, scales: list[float]) -> None:
    """At the image's size and at a quarter of it, divided by their maximum; without a label there are none."""
    image, config = random_photo((45, 58)), CRTInferConfig(scales=scales)
    photos = zip(*map(config.transform(), (image, random_photo((45, 58), 1))), strict=True)
    views, labels = [torch.stack(views) for views in photos], torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0]])
    cams, empty = crt_cams(model, views, labels, config)
    sums = [torch.zeros(2, 12, 15), torch.zeros(2, 48, 64)]
    for scale in scales:
        size = round(58 * scale), round(45 * scale)
        view = eval_transform(image.resize(size, Image.Resampling.BICUBIC))
        of_scale = slow_cams(model, view, True)[None, [1, 3]]
        for total in sums:
            total += F.interpolate(of_scale, total.shape[-2:], mode="bilinear", align_corners=False)[0]
    for found, expected in zip(cams, (sums[0], sums[1][:, :45, :58]), strict=True):
        torch.testing.assert_close(found, expected / (expected.amax((1, 2), keepdim=True) + 1e-5), rtol=1e-3, atol=1e-5)
        assert found.min() >= 0 and 0.9 < found.max() < 1
    assert empty.strided.shape == (0, 12, 15) and empty.high_res.shape == (0, 45, 58)
    seeds = seed_maps(model, config)(views, labels).maps
    assert torch.equal(seeds[0], cams.high_res) and seeds[1].shape == (0, 45, 58)


def test_a_pass_has_the_tiles_asked_for_or_what_suits_the_device() -> None:
    assert [CRTInferConfig(tiles=tiles).tiles_on(torch.device("cpu")) for tiles in (0, 5)] == [12, 5]
    assert CRTInferConfig().tiles_on(torch.device("cuda")) == 128


def test_scaled_photos() -> None:
    """Halves are rounded to even sides, scale 1 is the photo itself, and nothing vanishes."""
    assert scaled_size((75, 225), 0.5) == (38, 112) and scaled_size((1, 3), 0.1) == (1, 1)
    image = random_photo((31, 47))
    whole, *views = image_and_views(image, [1.0, 0.5, 2.0])
    assert torch.equal(whole, eval_transform(image))
    assert [tuple(view.shape) for view in views] == [(3, 31, 47), (3, 16, 24), (3, 62, 94)]
    assert torch.equal(views[0], eval_transform(image))
    assert torch.equal(views[1], eval_transform(image.resize((24, 16), Image.Resampling.BICUBIC)))


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), max_size=6), count=st.integers(1, 12))
def test_regrouping_keeps_all_in_order(sizes: list[int], count: int) -> None:
    """In parts of that many rows; only the last may have fewer, and none is empty."""
    rows = torch.arange(2 * sum(sizes)).view(-1, 2)
    parts = list(regrouped(rows.split(sizes) if sizes else [], count))
    assert torch.equal(torch.cat([rows[:0], *parts]), rows)
    assert all(len(part) == count for part in parts[:-1]) and all(0 < len(part) <= count for part in parts[-1:])


def test_settings_tell_what_changes_the_numbers() -> None:
    """The reference's scales; how tiles are grouped, too, which changes the last digits."""
    assert CRTInferConfig().scales == [1.0, 0.5, 1.5, 2.0, 0.75, 1.25, 1.75]
    assert CRTInferConfig(tiles=3).settings() != CRTInferConfig().settings()


@pytest.mark.parametrize("flip", [True, False])
def test_class_logits_are_means_over_views(model: DeiTBranch, flip: bool) -> None:
    """Of an image that fits into one tile; cells of the padding do not count."""
    image = eval_transform(random_photo((20, 25)))[None]
    (found,) = view_cams(model, [image], 4, flip)
    expected = [
        presence_logits(model(F.pad(view, (0, TILE - 25, 0, TILE - 20)))[..., : -(-20 // PATCH), : -(-25 // PATCH)])
        for view in ([image, image.flip(-1)] if flip else [image])
    ]
    torch.testing.assert_close(found.logits, torch.stack(expected).mean(0))


def test_a_class_is_told_by_the_cells_that_it_wins() -> None:
    """A small object counts as much as a large one, a class that others beat at every cell does not."""
    maps = torch.full((1, 3, 9, 9), -9.0)
    maps[0, 0, :4] = maps[0, 1, 5:8, 5:8] = 6
    maps[0, 2, :4] = maps[0, 2, 5:8, 5:8] = 3
    large, small, beaten = presence_logits(maps)[0].sigmoid().tolist()
    assert large > 0.8 and small == pytest.approx(large, abs=1e-4) and beaten < 0.2
    assert presence_logits(torch.full((1, 3, 2, 2), -50.0)).isfinite().all()
