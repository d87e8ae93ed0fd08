"""Places of crops: every one that fits, each as often as another, and nothing else."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.crops import draw_offset, draw_place, place_at, placed_pixels
from common.data.transforms import eval_transform, normalised

SIDES = [(10, 7), (7, 10), (8, 8), (1, 4)]  # of image and crop


@pytest.mark.parametrize(("side", "size"), SIDES)
def test_places_are_uniform_over_all_that_fit(side: int, size: int) -> None:
    """A crop lies within a longer side, a shorter side within the crop."""
    random.seed(0)
    found = [draw_place(side, size) for _ in range(400)]
    for place in found:
        assert place.length == min(side, size)
        assert 0 <= place.canvas <= size - place.length and 0 <= place.source <= side - place.length
    starts = [place.canvas + place.source for place in found]
    counts = np.bincount(starts, minlength=abs(side - size) + 1)
    assert len(counts) == abs(side - size) + 1 and counts.min() > 0.5 * 400 / len(counts)


@pytest.mark.parametrize(("side", "size"), SIDES)
def test_a_place_takes_one_draw(side: int, size: int) -> None:
    """Also where there is no choice: the draws that follow are the reference's."""
    random.seed(3)
    random.randrange(abs(side - size) + 1)
    expected = random.random()
    for draw in (draw_offset, draw_place):
        random.seed(3)
        draw(side, size)
        assert random.random() == expected


def test_a_crop_by_hand() -> None:
    """Cut in width, padded in height: what is seen is the image, normalised; zero elsewhere."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (3, 9, 3), dtype=np.uint8))
    pixels = placed_pixels(image, place_at(9, 6, 2), place_at(3, 6, 1), 6)
    assert pixels.shape == (4, 6, 6) and pixels.dtype == torch.uint8 and not pixels[:, 0].any()
    crop = normalised(pixels)
    assert crop.shape == (3, 6, 6) and crop.dtype == torch.float32
    assert torch.equal(crop[:, 1:4], eval_transform(image)[:, :, 2:8])
    assert not crop[:, 0].any() and not crop[:, 4:].any()
