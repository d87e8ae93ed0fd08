"""CRT's training view: scale, flip and place by the reference's draws, and nothing else."""

import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from common.data.transforms import eval_transform, normalised
from common.run.config import load_config
from common.run.errors import UserError
from common.run.random import draws_from
from methods.crt.config import CRTViewConfig
from methods.crt.views import CRTViews, draw_view

pytestmark = pytest.mark.usefixtures("one_thread")


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (48, 48)])
@pytest.mark.parametrize("seed", range(4))
def test_a_view_is_a_window_on_the_scaled_image(size: tuple[int, int], seed: int) -> None:
    """Found by its draws in the image on an endless canvas of zeros; most of the time cut, padded or mirrored."""
    config, image = CRTViewConfig([20, 60], 32), picture(*size, seed)
    with draws_from(seed):
        long, flip = random.randint(20, 60), random.getrandbits(1)
        height, width = (round(side * (long / max(size))) for side in size)
        column, row = (random.randrange(abs(side - 32) + 1) for side in (width, height))
    scaled = image.resize((width, height), Image.Resampling.BICUBIC)
    canvas = torch.zeros(3, height + 64, width + 64)
    canvas[:, 32 : 32 + height, 32 : 32 + width] = eval_transform(ImageOps.mirror(scaled) if flip else scaled)
    top, left = (
        32 + offset if side > 32 else 32 - offset for side, offset in ((height, row), (width, column))
    )  # of the window
    with draws_from(seed):
        (view,) = CRTViews(config)(image)
    assert view.dtype == torch.uint8 and torch.equal(normalised(view), canvas[:, top : top + 32, left : left + 32])


def test_the_long_side_is_anything_in_its_range() -> None:
    """Both ends included; the aspect is kept, every place and both directions are drawn."""
    config = CRTViewConfig([6, 9], 8)
    random.seed(0)
    views = [draw_view(10, 20, config) for _ in range(600)]
    assert {view.size for view in views} == {(3, 6), (4, 7), (4, 8), (4, 9)}  # 3.5 and 4.5 become 4
    assert {view.flip for view in views} == {False, True}
    widest = [view for view in views if view.size == (4, 9)]
    assert {(view.columns.source, view.columns.canvas, view.columns.length) for view in widest} == {
        (0, 0, 8), (1, 0, 8),
    }  # fmt: skip
    assert {(view.rows.source, view.rows.canvas, view.rows.length) for view in widest} == {
        (0, start, 4) for start in range(5)
    }  # fmt: skip


def test_narrow_images_keep_a_pixel() -> None:
    """However long they are."""
    view = draw_view(1, 1000, CRTViewConfig([20, 20], 32))
    assert view.size == (1, 20)
    assert CRTViews(CRTViewConfig([20, 20], 32))(picture(1, 1000))[0].shape == (4, 32, 32)


@pytest.mark.parametrize("wrong", ["long_side=[5]", "long_side=[9, 5]", "long_side=[0, 5]", "crop_size=0"])
def test_wrong_settings(wrong: str) -> None:
    """One line that names the key."""
    with pytest.raises(UserError, match="it must be"):
        load_config(CRTViewConfig, None, [wrong])
