"""From seed to pseudo mask: background, padding, classes, and features without a say."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from methods.psa.config import WalkConfig
from methods.psa.walk import padded, pseudo_mask, walked_maps, with_background

pytestmark = pytest.mark.usefixtures("one_thread")


def draw_seed(size: tuple[int, int], *keys: int) -> dict[int, np.ndarray]:
    """Random smooth maps in [0, 1] of some classes."""
    rng = torch.Generator().manual_seed(0)
    maps = F.interpolate(torch.rand(1, len(keys), 4, 5, generator=rng), size, mode="bilinear")[0]
    return dict(zip(keys, maps.numpy(), strict=True))


def test_background_maps() -> None:
    seed = draw_seed((6, 7), 2, 5)
    largest = np.maximum(seed[2], seed[5])
    constant = with_background(seed, WalkConfig(bg_thr=0.45))
    alpha = with_background(seed, WalkConfig("alpha", bg_alpha=4))
    assert (constant[0] == 0.45).all() and constant.shape == (3, 6, 7)
    np.testing.assert_allclose(alpha[0], (1 - largest) ** 4, rtol=1e-5)
    for maps in (constant, alpha):
        assert (maps[1].numpy() == seed[2]).all() and (maps[2].numpy() == seed[5]).all()


@pytest.mark.parametrize(("size", "full"), [((16, 24), (16, 24)), ((17, 23), (24, 24)), ((1, 9), (8, 16))])
def test_padding(size: tuple[int, int], full: tuple[int, int]) -> None:
    """Zeros to the right and below."""
    maps = padded(torch.ones(2, *size), 8)
    assert maps.shape[1:] == full and (maps[:, : size[0], : size[1]] == 1).all() and maps.sum() == 2 * size[0] * size[1]


def test_without_pairs_the_mask_is_that_of_the_cells() -> None:
    """An image of fewer cells than a pair needs; classes are named by their index, and the others never appear."""
    seed, config = draw_seed((30, 29), 3, 17), WalkConfig(bg_thr=0.5)
    mask = pseudo_mask(seed, (30, 29), torch.randn(4, 4, 4), 8, 5, config)
    cells = F.avg_pool2d(padded(with_background(seed, config), 8), 8)
    full = F.interpolate(cells[None], scale_factor=8, mode="bilinear")[0, :, :30, :29]
    assert mask.dtype == np.uint8 and mask.shape == (30, 29)
    assert (mask == np.array([0, 4, 18])[full.argmax(0)]).all() and set(np.unique(mask)) == {0, 4, 18}


def test_values_spread_as_far_as_features_are_alike() -> None:
    """A speck of one class fills its side of a border between features, and does not cross it.

    Cells at the left, right and lower border have fewer pairs, those in the upper corners none: they keep their values.
    """
    features = torch.zeros(3, 12, 16)
    features[:, :, 8:] = 5
    seed = {4: np.full((24, 32), 0.05, np.float32)}
    seed[4][10:14, 6:10] = 1
    walked = walked_maps(with_background(seed, WalkConfig()), features, 2, 5, WalkConfig())
    left, right = walked[1, 2:8, 4:8], walked[1, :, 8:]
    assert left.max() - left.min() < 0.01 and left.min() > 0.1 and right.max() < 0.051
    assert float(walked[1, 0, 0]) == pytest.approx(0.05, rel=1e-5)
    mask = pseudo_mask(seed, (24, 32), features, 2, 5, WalkConfig(bg_thr=0.06))
    assert (mask[4:16, 8:14] == 5).all() and (mask[:, 18:] == 0).all()


def test_a_seed_of_no_class_is_background() -> None:
    mask = pseudo_mask({}, (20, 30), torch.randn(4, 3, 4), 8, 5, WalkConfig())
    assert mask.shape == (20, 30) and not mask.any()
