"""ToCo's training views: geometry, boxes, and what is left without the random steps. (Scaling, crop and box of the
reference are compared in tests/golden.)
"""

import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from common.data.transforms import to_bytes
from common.run.config import load_config
from common.run.errors import UserError
from common.run.random import draws_from
from methods.toco.config import ToCoViewConfig
from methods.toco.views import Position, RandomSolarise, ToCoViews, crop_at, draw_position, rescaled

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"crop_size": 48, "local_size": 16, "local_crops": 3}


def picture(width: int, height: int, seed: int = 0, darkest: int = 20) -> Image.Image:
    """Smooth random colours."""
    coarse = np.random.default_rng(seed).integers(darkest, 220, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


def views_of(image: Image.Image, seed: int = 0, **config: object) -> list[Tensor]:
    """Views under seeded draws."""
    with draws_from(seed):
        return ToCoViews(ToCoViewConfig(**{**SMALL, **config}))(image)


def brightness(view: Tensor) -> Tensor:
    """Grey values (S, S) of a view, from 0 to 1."""
    return (view / 255).mean(0)


def likeness(first: Tensor, second: Tensor) -> float:
    """Correlation of two maps."""
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


def bright_box(grey: Tensor) -> Tensor:
    """Top, bottom, left and right of what is nearer to the brightest than to the darkest value."""
    bright = grey > (grey.min() + grey.max()) / 2
    rows, columns = bright.any(1).nonzero(), bright.any(0).nonzero()
    return torch.tensor([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1])


def test_views() -> None:
    """Sizes, types, the same draws for the same seed."""
    for width, height, size in ((60, 80, 48), (20, 17, 33), (200, 100, 64)):
        found = views_of(picture(width, height), crop_size=size)
        *views, box = found
        assert [view.shape for view in views] == [(3, size, size)] * 3 and box.dtype == torch.int64
        assert all(view.dtype == torch.uint8 for view in views)
        top, bottom, left, right = box.tolist()
        assert 0 <= top < bottom <= size and 0 <= left < right <= size
        again = views_of(picture(width, height), crop_size=size)
        assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
        other = views_of(picture(width, height), seed=1, crop_size=size)
        assert not any(torch.equal(one, another) for one, another in zip(views, other[:3], strict=True))


def test_the_published_sizes() -> None:
    """Of the defaults."""
    assert [tuple(view.shape) for view in ToCoViews(ToCoViewConfig())(picture(300, 200))[:3]] == [(3, 448, 448)] * 3


def test_crop_and_box() -> None:
    """The image's part of the window, black around it, wherever the canvas has it."""
    image = picture(30, 20)
    pixels = np.array(image)
    for position, box in (
        (Position(0, 0, 0, 0), [0, 20, 0, 30]), (Position(20, 10, 0, 0), [20, 40, 10, 40]),
        (Position(7, 3, 0, 0), [7, 27, 3, 33]),
    ):  # fmt: skip
        crop, found = crop_at(image, position, 40)
        expected = np.zeros((40, 40, 3), np.uint8)
        expected[box[0] : box[1], box[2] : box[3]] = pixels
        assert found == box and np.array_equal(np.array(crop), expected)
    crop, box = crop_at(image, Position(0, 0, 5, 12), 15)  # larger than the window
    assert box == [0, 15, 0, 15] and np.array_equal(np.array(crop), pixels[5:20, 12:27])
    crop, box = crop_at(image, Position(3, 0, 0, 6), 24)  # lower than the window, and wider
    assert box == [3, 23, 0, 24] and np.array_equal(np.array(crop)[3:23], pixels[:, 6:30])
    assert not np.array(crop)[:3].any() and not np.array(crop)[23:].any()


@pytest.mark.parametrize(("width", "height"), [(30, 20), (60, 20), (60, 70), (40, 40)])
def test_drawn_positions(width: int, height: int) -> None:
    """A side that is too short is padded, a longer one is cut; every place occurs."""
    image, size = picture(width, height), 40
    with draws_from(0):
        found = {draw_position(image, size) for _ in range(2000)}
    rows, columns = abs(height - size) + 1, abs(width - size) + 1
    assert {place.pad_top + place.top for place in found} == set(range(rows))
    assert {place.pad_left + place.left for place in found} == set(range(columns))
    for place in found:
        assert not (place.pad_top if height > size else place.top)
        assert not (place.pad_left if width > size else place.left)


def test_rescaling_rounds_down() -> None:
    """But never to nothing."""
    assert rescaled(picture(33, 21), 0.73).size == (24, 15) and rescaled(picture(1, 21), 0.5).size == (1, 10)


@pytest.mark.parametrize("paired", [False, True])
def test_the_box_follows_the_crop(paired: bool) -> None:
    """The bright part of the main image is the box; by default the main image may be its mirror image."""
    mirrored = 0
    for seed in range(40):
        main, _, local, box = views_of(picture(30, 24, darkest=190), seed, paired=paired, scale=[0.5, 1.2])
        for view in (main, local):
            extent = bright_box(brightness(view))
            expected, flipped = box.clone(), torch.stack([box[0], box[1], 48 - box[3], 48 - box[2]])
            if not paired and (extent - flipped).abs().sum() < (extent - expected).abs().sum():
                expected, mirrored = flipped, mirrored + 1
            assert (extent - expected).abs().max() <= 3  # blurred by up to 2 pixels
    assert paired or mirrored > 20


def test_paired_views_are_of_one_geometry() -> None:
    """Main image and local source always if paired, else in about half of the samples."""
    for paired, range_of_same in ((True, (40, 40)), (False, (10, 30))):
        same = 0
        for seed in range(40):
            grey = picture(70, 60, seed).convert("L").convert("RGB")  # jitter of hue and saturation leaves it alone
            main, _, local, _ = views_of(grey, seed, paired=paired, scale=[1.0, 1.5])
            like, unlike = (likeness(brightness(main), brightness(view)) for view in (local, local.flip(-1)))
            assert max(like, unlike) > 0.8
            same += like > unlike
        assert range_of_same[0] <= same <= range_of_same[1]


def test_without_random_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The local source is the crop itself, the main image the crop blurred."""
    image = picture(48, 48)
    monkeypatch.setattr(torch, "rand", lambda *size: torch.full(size, 0.99))  # no step with p < 0.99
    monkeypatch.setattr(random, "random", lambda: 0.99)
    monkeypatch.setattr(random, "uniform", lambda low, high: 1.0)  # scale and radius
    main, second, local, box = ToCoViews(ToCoViewConfig(**SMALL))(image)
    assert torch.equal(local, to_bytes(image)) and box.tolist() == [0, 48, 0, 48]
    assert torch.equal(main, to_bytes(image.filter(ImageFilter.GaussianBlur(1.0))))
    assert second.shape == (3, 48, 48)


def test_all_random_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flips come twice for main image and local source, and cancel out; view 2 is solarised after its blur."""
    image = picture(48, 48)
    monkeypatch.setattr(torch, "rand", lambda *size: torch.zeros(size))
    monkeypatch.setattr(random, "random", lambda: 0.0)
    monkeypatch.setattr(random, "uniform", lambda low, high: 1.0)
    monkeypatch.setattr("torchvision.transforms.ColorJitter.forward", lambda self, img: img)
    monkeypatch.setattr("torchvision.transforms.RandomResizedCrop.forward", lambda self, img: img)
    main, second, local, _ = ToCoViews(ToCoViewConfig(**SMALL))(image)
    changed = image.convert("L").convert("RGB").filter(ImageFilter.GaussianBlur(1.0))
    assert torch.equal(main, to_bytes(changed)) and torch.equal(local, main)
    assert torch.equal(second, to_bytes(ImageOps.solarize(ImageOps.mirror(changed), 128)))


def test_the_second_view_has_no_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a part of the image, not of its crop."""
    monkeypatch.setattr(RandomSolarise, "__call__", lambda self, image: image)
    for seed in range(10):
        _, second, _, _ = views_of(picture(30, 24, darkest=150), seed, scale=[0.5, 0.5])
        assert brightness(second).min() > 0.1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("scale=[2.0,0.5]", "ascending"), ("scale=[0,1]", "above 0"), ("scale=[1]", "2 numbers"),
        ("crop_size=0", "at least 1"), ("local_crops=0", "at least 1"),
    ],
)  # fmt: skip
def test_wrong_settings(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(ToCoViewConfig, overrides=[setting])


def test_local_crops_must_fit() -> None:
    """Before the first image is read."""
    with pytest.raises(UserError, match="no room for 8 different local crops of 96 x 96"):
        ToCoViews(ToCoViewConfig(crop_size=98))
