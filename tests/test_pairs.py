"""Pairs of neighbouring cells, their labels, and the random walk, against loops and dense matrices."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.masks.pairs import _power_coefficients, pair_directions, pair_labels, random_walk, window, windows

pytestmark = pytest.mark.usefixtures("one_thread")


def pairs_of(height: int, width: int, radius: int) -> list[tuple[int, tuple[int, int], tuple[int, int]]]:
    """(direction's number, source, other end) of every pair, by the definition."""
    reach, found = radius - 1, []
    for number, (dy, dx) in enumerate(pair_directions(radius)):
        for y, x in itertools.product(range(height - reach), range(reach, width - reach)):
            found.append((number, (y, x), (y + dy, x + dx)))
    return found


def dense_walk(scores: Tensor, affinity: Tensor, radius: int, beta: float, log2_rounds: int) -> Tensor:
    """The walk as the reference computes it, in float64."""
    (height, width), reach = scores.shape[1:], radius - 1
    matrix = torch.eye(height * width, dtype=torch.float64)
    for number, (y, x), (other_y, other_x) in pairs_of(height, width, radius):
        first, second = y * width + x, other_y * width + other_x
        matrix[first, second] = matrix[second, first] = float(affinity[number, y, x - reach])
    matrix = matrix**beta
    matrix /= matrix.sum(0, keepdim=True)
    for _ in range(log2_rounds):
        matrix = matrix @ matrix
    return (scores.double().flatten(1) @ matrix).view(scores.shape)


def draw(height: int, width: int, radius: int, count: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Scores (n, h, w) and affinities (D, h', w') in [0, 1], among which are many near 0 and 1, and exact ones."""
    rng = np.random.default_rng(seed)
    shape = len(pair_directions(radius)), max(height - radius + 1, 0), max(width - 2 * radius + 2, 0)
    affinity = rng.beta(0.5, 0.5, shape).astype(np.float32)
    affinity[rng.random(shape) < 0.1] = 0
    affinity[rng.random(shape) < 0.1] = 1
    return torch.from_numpy(rng.random((count, height, width), np.float32)), torch.from_numpy(affinity)


@pytest.mark.parametrize(("radius", "count"), [(2, 4), (5, 34), (10, 152)])
def test_directions_are_one_half_of_a_disc(radius: int, count: int) -> None:
    """Each is shorter than the radius; with their opposites they are all there are; rightwards first, then down."""
    directions = pair_directions(radius)
    both = {*directions, *((-dy, -dx) for dy, dx in directions)}
    inside = {
        (dy, dx) for dy, dx in itertools.product(range(-radius, radius + 1), repeat=2) if 0 < dy**2 + dx**2 < radius**2
    }
    assert len(directions) == count and both == inside and len(both) == 2 * count
    assert directions == sorted(directions)


def test_windows_are_views_of_both_ends() -> None:
    maps = torch.arange(2 * 7 * 11).view(2, 7, 11)
    seen = list(windows(maps, pair_directions(3), 3))
    for number, (y, x), other in pairs_of(7, 11, 3):
        source, shifted = seen[number]
        assert (source[:, y, x - 2] == maps[:, y, x]).all() and (shifted[:, y, x - 2] == maps[:, *other]).all()
    assert all(part.shape == (2, 5, 7) for pair in seen for part in pair)
    window(maps, 3, (1, -2))[0, 0, 0] = -1
    assert maps[0, 1, 0] == -1


def test_labels_of_pairs() -> None:
    """Every pair of a map with background, two classes and ignored cells, by the definition."""
    labels = torch.from_numpy(np.random.default_rng(0).choice([0, 3, 7, 255], (2, 8, 13)).astype(np.uint8))
    background, foreground, negative = pair_labels(labels, pair_directions(4), 4)
    for image, (number, (y, x), (other_y, other_x)) in itertools.product(range(2), pairs_of(8, 13, 4)):
        one, two, place = labels[image, y, x], labels[image, other_y, other_x], (image, number, y, x - 3)
        assert background[place] == (one == two == 0)
        assert foreground[place] == (one == two and one not in (0, 255))
        assert negative[place] == (one != two and one != 255 and two != 255)
    assert background.shape == foreground.shape == negative.shape == (2, 22, 5, 7)


@pytest.mark.parametrize("log2_rounds", [0, 1, 2, 5, 8])
@pytest.mark.parametrize(("radius", "beta"), [(5, 8.0), (3, 1.0)])
def test_the_walk_is_that_of_dense_powers(radius: int, beta: float, log2_rounds: int) -> None:
    scores, affinity = draw(10, 13, radius)
    walked = random_walk(scores, affinity, pair_directions(radius), radius, beta, log2_rounds)
    expected = dense_walk(scores, affinity, radius, beta, log2_rounds)
    torch.testing.assert_close(walked.double(), expected, rtol=0, atol=3e-5)
    assert walked.dtype == torch.float32


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 14), st.integers(2, 5), st.integers(1, 4), st.integers(0, 10**6))
def test_the_walk_on_any_grid(height: int, width: int, radius: int, count: int, seed: int) -> None:
    """Grids without any pair among them, which stay as they are."""
    scores, affinity = draw(height, width, radius, count, seed)
    walked = random_walk(scores, affinity, pair_directions(radius), radius, 2.0, 4)
    torch.testing.assert_close(walked.double(), dense_walk(scores, affinity, radius, 2.0, 4), rtol=0, atol=1e-5)
    if not affinity.numel():
        torch.testing.assert_close(walked, scores, rtol=1e-6, atol=0)


def test_the_walk_takes_directions_in_any_order() -> None:
    scores, affinity = draw(9, 12, 4)
    directions = pair_directions(4)
    order = np.random.default_rng(1).permutation(len(directions)).tolist()
    shuffled = random_walk(scores, affinity[order], [directions[number] for number in order], 4, 2.0, 3)
    assert torch.equal(shuffled, random_walk(scores, affinity, directions, 4, 2.0, 3))


def test_what_a_walk_keeps() -> None:
    """Constants, zeros exactly, and everything on its side of a wall."""
    directions, (_, affinity) = pair_directions(3), draw(9, 14, 3)
    halves = torch.zeros(9, 14)
    halves[:, 7:] = 1
    for number, (one, other) in enumerate(windows(halves, directions, 3)):
        affinity[number] *= one == other
    scores = torch.stack([torch.full((9, 14), 0.37), torch.zeros(9, 14), halves])
    walked = random_walk(scores, affinity, directions, 3, 1.0, 8)
    torch.testing.assert_close(walked, scores, rtol=0, atol=1e-5)
    assert torch.equal(walked[1], scores[1])
    assert (random_walk(torch.rand(1, 9, 14), affinity, directions, 3, 1.0, 8)[0, :5, 2:5].std()) < 0.02  # mixed


@pytest.mark.parametrize("exponent", [1, 2, 4, 64, 256, 4096])
def test_powers_as_chebyshev_polynomials(exponent: int) -> None:
    """On all of [-1, 1], where the eigenvalues are; with far fewer terms than rounds."""
    x, coefficients = np.cos(np.linspace(0, np.pi, 1001)), _power_coefficients(exponent)
    value = np.polynomial.chebyshev.chebval(x, coefficients)
    np.testing.assert_allclose(value, x**exponent, rtol=0, atol=2e-9)
    assert len(coefficients) <= max(2, 6.2 * exponent**0.5 + 1) and len(coefficients) <= max(exponent + 1, 2)


def test_the_walk_ignores_autocast() -> None:
    scores, affinity = draw(9, 12, 4)
    plain = random_walk(scores, affinity, pair_directions(4), 4, 8.0, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(random_walk(scores, affinity, pair_directions(4), 4, 8.0, 4), plain)
