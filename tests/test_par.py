"""Pixel-adaptive refinement: laws, and the definition written out in loops. (Numbers are compared in tests/golden.)"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.toco.config import DILATIONS
from methods.toco.par import PAR

pytestmark = pytest.mark.usefixtures("one_thread")


def uniform(*shape: int, seed: int = 1) -> Tensor:
    """Seeded numbers in [0, 1)."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def looped(image: np.ndarray, masks: np.ndarray, dilations: tuple[int, ...], iterations: int) -> np.ndarray:
    """PAR of one image (3, h, w), pixel by pixel in float64."""
    height, width = image.shape[1:]
    offsets = [(d * a, d * b) for d in dilations for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]
    distances = np.array([math.sqrt(a * a + b * b) for a, b in offsets])
    position = softmax(-((distances / (distances.std(ddof=1) + 1e-8) / 0.3) ** 2))

    def around(maps: np.ndarray, y: int, x: int) -> np.ndarray:
        """The neighbours of a pixel (c, N); beyond the border the nearest pixel."""
        places = [(min(max(y + a, 0), height - 1), min(max(x + b, 0), width - 1)) for a, b in offsets]
        return np.stack([maps[:, r, c] for r, c in places], axis=1)

    affinity = {}
    for y, x in np.ndindex(height, width):
        near = around(image, y, x)
        scaled = np.abs(near - image[:, y, x][:, None]) / (near.std(axis=1, ddof=1, keepdims=True) + 1e-8) / 0.3
        affinity[y, x] = softmax(-(scaled**2).mean(0)) + 0.01 * position
    for _ in range(iterations):
        refined = np.empty_like(masks)
        for y, x in np.ndindex(height, width):
            refined[:, y, x] = around(masks, y, x) @ affinity[y, x]
        masks = refined
    return masks


def softmax(scores: np.ndarray) -> np.ndarray:
    """Of a vector."""
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def test_equals_the_definition() -> None:
    """On an image smaller than the largest distance."""
    images, masks = uniform(2, 3, 9, 7), uniform(2, 2, 9, 7, seed=2)
    dilations, iterations = (1, 2, 4, 12), 3
    computed = PAR(images, dilations, iterations)(masks)
    for image, mask, own in zip(images, masks, computed, strict=True):
        expected = looped(image.double().numpy(), mask.double().numpy(), dilations, iterations)
        np.testing.assert_allclose(own.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_affinities_sum_to_101_percent() -> None:
    """Whatever the image, a uniform one included; so a constant mask stays one."""
    images = torch.cat([uniform(1, 3, 20, 30), torch.full((1, 3, 20, 30), 0.4)])
    par = PAR(images)
    assert len(par.affinities) == 8 * len(DILATIONS)
    torch.testing.assert_close(par.affinities.sum(0), torch.full((2, 1, 20, 30), 1.01))
    masks = torch.full((2, 4, 20, 30), 0.3)
    torch.testing.assert_close(par(masks), masks * 1.01**10, rtol=1e-5, atol=0)


def test_masks_of_another_size_are_resized() -> None:
    """With aligned corners."""
    par, masks = PAR(uniform(1, 3, 12, 16), (1, 2), 2), uniform(1, 2, 5, 4, seed=2)
    expected = par(F.interpolate(masks, size=(12, 16), mode="bilinear", align_corners=True))
    assert torch.equal(par(masks), expected)


def test_masks_and_images_do_not_see_each_other() -> None:
    """Together or alone."""
    images, masks = uniform(2, 3, 12, 16), uniform(2, 3, 12, 16, seed=2)
    together = PAR(images, (1, 4), 2)(masks)
    for index in range(2):
        par = PAR(images[index : index + 1], (1, 4), 2)
        for mask in range(3):
            torch.testing.assert_close(
                par(masks[index : index + 1, mask : mask + 1])[0, 0], together[index, mask], rtol=1e-6, atol=1e-7
            )


def test_masks_spread_within_a_colour() -> None:
    """From a spot in the dark half all over it, hardly into the bright one."""
    image = uniform(1, 3, 24, 24) * 0.05
    image[..., 12:] += 0.9
    masks = torch.zeros(1, 1, 24, 24)
    masks[..., 8:16, 2:10] = 1
    refined = PAR(image)(masks)
    inside, outside = refined[..., :12], refined[..., 12:]
    assert inside.min() > 0.09 and outside.max() < 0.1 * inside.mean()


def test_autocast_changes_nothing() -> None:
    """Refinement is in float32."""
    images, masks = uniform(1, 3, 8, 8), uniform(1, 2, 4, 4, seed=2)
    expected = PAR(images, (1, 2), 2)(masks)
    with torch.autocast("cpu", torch.bfloat16):
        computed = PAR(images, (1, 2), 2)(masks)
    assert computed.dtype == torch.float32 and torch.equal(computed, expected)
