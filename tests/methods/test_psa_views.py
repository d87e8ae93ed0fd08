"""PSA's views and cell targets: crops, padding, flips, and which cells belong together."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.transforms import MEAN, STD, normalised
from methods.psa.config import PSAViewConfig
from methods.psa.marginals import Marginals
from methods.psa.views import Placement, PSAViews, cell_targets, draw_placement, mean_pooled, placed

STILL = [0.0] * 4  # no jitter


def test_cell_targets_by_hand() -> None:
    """Sure of class 2; background by the high marginals, whatever the low ones say; unsure; padding."""
    low = np.array([[0.1, 0.2, 0.8, 0.0], [0.2, 0.7, 0.1, 0.0], [0.7, 0.1, 0.1, 0.0]], np.float32)[:, None]
    high = np.array([[0.1, 0.6, 0.3, 0.0], [0.1, 0.3, 0.5, 0.0], [0.8, 0.1, 0.2, 0.0]], np.float32)[:, None]
    assert cell_targets(low, high).tolist() == [[2, 0, 255, 255]]
    assert cell_targets(low, high).dtype == np.uint8
    high[0, 0, 2] = 0.5  # a tie: background comes first
    assert cell_targets(low, high)[0, 2] == 0


def test_an_image_of_background_alone_is_background() -> None:
    """But for its padding."""
    maps = np.array([[[1.0, 1.0, 0.0]]], np.float32)
    assert cell_targets(maps, maps).tolist() == [[0, 0, 255]]


@pytest.mark.parametrize("size", [(30, 50), (50, 30), (30, 30), (60, 70), (40, 41)])
def test_crops_and_padding(size: tuple[int, int]) -> None:
    """Either axis is cut or padded on its own; every place is drawn."""
    random.seed(0)
    maps, crop, seen = np.arange(1, np.prod(size) + 1).reshape(1, *size), 40, set()
    for _ in range(300):
        place = draw_placement(*size, crop)
        view = placed(maps, place, crop)[0]
        view = view[:, ::-1] if place.mirrored else view
        rows = slice(place.top, place.top + size[0]) if size[0] <= crop else slice(0, crop)
        columns = slice(place.left, place.left + size[1]) if size[1] <= crop else slice(0, crop)
        inside = view[rows, columns]
        from_y, from_x = (
            offset if side > crop else 0 for side, offset in zip(size, (place.top, place.left), strict=True)
        )
        assert (inside == maps[0, from_y : from_y + inside.shape[0], from_x : from_x + inside.shape[1]]).all()
        assert (view > 0).sum() == inside.size == min(size[0], crop) * min(size[1], crop)
        seen.add((place.top, place.left))
    tops, lefts = ({place[axis] for place in seen} for axis in (0, 1))
    assert tops == set(range(abs(size[0] - crop) + 1)) and lefts == set(range(abs(size[1] - crop) + 1))


def test_the_order_of_draws() -> None:
    """Left, top, flip: one draw each from Python's generator."""
    random.seed(7)
    expected = random.randrange(11), random.randrange(6), bool(random.getrandbits(1))
    random.seed(7)
    assert draw_placement(35, 50, 40) == expected


def test_means_of_cells() -> None:
    maps = np.random.default_rng(0).random((2, 8, 12), np.float32)
    pooled = mean_pooled(maps, 4)
    assert pooled.shape == (2, 2, 3)
    assert pooled[1, 1, 2] == pytest.approx(maps[1, 4:, 8:].mean(), rel=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
def test_image_and_targets_move_together(mirrored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The white part of the image is where the class is; outside the image there is black, and no target."""
    monkeypatch.setattr("methods.psa.views.draw_placement", lambda *size: Placement(4, 8, mirrored))
    pixels, foreground = np.full((32, 24, 3), 10, np.uint8), np.zeros((1, 32, 24), np.float32)
    pixels[8:16, 12:], foreground[:, 8:16, 12:] = 255, 1
    maps = np.concatenate([1 - foreground, foreground])
    image, targets = PSAViews(PSAViewConfig(crop_size=48, jitter=STILL), 4)(
        (Image.fromarray(pixels), Marginals(maps, maps))
    )
    assert image.shape == (3, 48, 48) and targets.shape == (12, 12) and image.dtype == targets.dtype == torch.uint8
    image = normalised(image)
    cells = (image * STD + MEAN).mean(0).view(12, 4, 12, 4).mean((1, 3))
    assert (targets == 1).sum() == 2 * 3 and torch.equal(targets == 1, cells > 0.9)
    assert torch.equal(targets == 255, cells < 0.01) and (targets == 255).sum() == 144 - 8 * 6
    torch.testing.assert_close(image[:, 0, 0], (-MEAN / STD)[:, 0, 0])


def test_jitter_draws_from_torch_and_leaves_the_marginals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same crop with and without it; other colours; equal targets."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    maps = np.random.default_rng(1).random((3, 40, 40), np.float32)
    views = []
    for jitter in (STILL, [0.3, 0.3, 0.3, 0.1], [0.3, 0.3, 0.3, 0.1]):
        random.seed(3)
        torch.manual_seed(len(views))
        views.append(
            PSAViews(PSAViewConfig(crop_size=32, jitter=jitter), 8)((Image.fromarray(pixels), Marginals(maps, maps)))
        )
    plain, one, two = views
    assert torch.equal(plain[1], one[1]) and torch.equal(one[1], two[1])
    assert not torch.equal(plain[0], one[0]) and not torch.equal(one[0], two[0])
