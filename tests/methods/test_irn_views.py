"""IRN's training views: image and labels stay together, whatever the scale, flip and place."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from common.data.transforms import MEAN, STD, normalised
from common.run.config import load_config
from common.run.errors import UserError
from common.run.random import draws_from
from methods.irn.config import IRNViewConfig
from methods.irn.views import IRNViews, reduced, rescaled

pytestmark = pytest.mark.usefixtures("one_thread")


def scene(height: int, width: int, seed: int = 0) -> tuple[Image.Image, np.ndarray]:
    """Labels in large blotches, and an image whose red channel is 25 times the label plus 40."""
    coarse = np.random.default_rng(seed).integers(0, 8, (3, 4), dtype=np.uint8)
    labels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST))
    pixels = np.stack([labels * 25 + 40, np.full_like(labels, 90), np.full_like(labels, 160)], axis=-1)
    return Image.fromarray(pixels), labels


def views_of(loaded: tuple[Image.Image, np.ndarray], seed: int = 0, **config: object) -> tuple[Tensor, Tensor]:
    """The views under seeded draws."""
    with draws_from(seed):
        image, labels = IRNViews(IRNViewConfig(**config))(loaded)
    return normalised(image), labels


def red(image: Tensor) -> Tensor:
    """The red channel (S, S), 0 to 255."""
    return (image * STD + MEAN)[0] * 255


@pytest.mark.parametrize("size", [(40, 64), (90, 30), (100, 120)])
@pytest.mark.parametrize("seed", range(4))
def test_labels_lie_on_the_image(size: tuple[int, int], seed: int) -> None:
    """The colour at a label's pixel is the label's; where nothing is labelled, there is no image."""
    image, labels = views_of(scene(*size, seed), seed, crop_size=64)
    assert image.shape == (3, 64, 64) and image.dtype == torch.float32
    assert labels.shape == (16, 16) and labels.dtype == torch.uint8
    at_labels, inside = image[:, 2::4, 2::4], labels != 255
    assert inside.any() and (labels[inside] < 8).all()
    assert not at_labels[:, ~inside].any()
    decoded = (red(at_labels)[inside] - 40) / 25
    right = ((decoded - labels[inside].float()).abs() < 0.2).float().mean()
    assert right > 0.75  # all but those beside a border of two blotches


def test_nothing_else_is_changed() -> None:
    """At scale 1 a crop of the image's size is the image, normalised, or its mirror image."""
    picture, labels = scene(32, 32)
    flips = set()
    for seed in range(8):
        image, reduced_labels = views_of((picture, labels), seed, crop_size=32, scale=[1.0, 1.0])
        found = (image * STD + MEAN).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        is_mirrored = not np.array_equal(found, np.asarray(picture))
        flips.add(is_mirrored)
        step = -1 if is_mirrored else 1
        assert np.array_equal(found, np.asarray(picture)[:, ::step])
        assert np.array_equal(reduced_labels.numpy(), labels[:, ::step][2::4, 2::4])
    assert flips == {True, False}


def test_what_is_beyond_the_image_is_zero_and_ignored() -> None:
    """A small image floats anywhere on the crop; as many pixels are seen as there are."""
    places = set()
    for seed in range(12):
        image, labels = views_of(scene(24, 16, seed), seed, crop_size=64, scale=[1.0, 1.0])
        covered = image.abs().sum(0) > 0
        rows, columns = covered.any(1).nonzero().flatten(), covered.any(0).nonzero().flatten()
        assert (len(rows), len(columns), int(covered.sum())) == (24, 16, 24 * 16)
        assert torch.equal(labels != 255, covered[2::4, 2::4])
        places.add((int(rows[0]), int(columns[0])))
    assert len(places) > 8


def test_columns_are_drawn_before_rows() -> None:
    """As in the reference: scale, flip, horizontal, vertical."""
    with draws_from(5):
        random.uniform(1, 1), random.getrandbits(1)
        columns, rows = random.randrange(64 - 16 + 1), random.randrange(64 - 24 + 1)
    image, _ = views_of(scene(24, 16), 5, crop_size=64, scale=[1.0, 1.0])
    covered = image.abs().sum(0) > 0
    assert (int(covered.any(1).nonzero()[0]), int(covered.any(0).nonzero()[0])) == (rows, columns)


def test_sizes_are_rounded_halves_to_even() -> None:
    """As numpy and the reference do; labels are never mixed."""
    for (height, width), factor, expected in (
        ((75, 25), 0.5, (38, 12)),
        ((10, 21), 1.5, (15, 32)),
        ((1, 1), 0.2, (1, 1)),
    ):
        image, labels = rescaled(*scene(height, width), factor)
        assert labels.shape == (image.height, image.width) == expected
    picture, labels = scene(50, 50)
    assert set(np.unique(rescaled(picture, labels, 0.73)[1])) <= set(np.unique(labels))


def test_the_scale_is_within_its_range() -> None:
    """From the smallest to the largest factor."""
    sides = []
    for seed in range(60):
        image, _ = views_of(scene(20, 20), seed, crop_size=64, scale=[0.5, 1.5])
        sides.append(int((image.abs().sum(0) > 0).any(1).sum()))
    assert 10 <= min(sides) <= 12 and 28 <= max(sides) <= 30


def test_labels_are_reduced_to_the_third_of_every_four() -> None:
    """Rows and columns 2, 6, 10, ..., as PIL's nearest does."""
    labels = np.arange(64 * 64, dtype=np.int32).reshape(64, 64)
    assert np.array_equal(
        reduced(labels), np.asarray(Image.fromarray(labels).resize((16, 16), Image.Resampling.NEAREST))
    )


def test_crops_are_multiples_of_four() -> None:
    """Others have no grid of labels; so for a range that is none."""
    for wrong in ("crop_size=50", "crop_size=0", "scale=[1.5, 0.5]", "scale=[0, 1]", "scale=[1]"):
        with pytest.raises(UserError, match="it must be"):
            load_config(IRNViewConfig, None, [wrong])
