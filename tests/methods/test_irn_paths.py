"""IRN's paths: which cells lie on them, and the largest value on each with its gradient. (The reference's own index is
compared in tests/golden.)
"""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.masks.pairs import pair_directions, window
from methods.irn.paths import pair_displacements, path_cells, path_directions, path_maximum

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = st.tuples(st.integers(0, 12), st.integers(-12, 12)).filter(any)


@given(STEPS)
def test_a_path_is_a_thin_line_between_its_ends(direction: tuple[int, int]) -> None:
    """Both ends are on it, the far one first; every cell is near the line, and the next one touches it."""
    cells, (dy, dx) = path_cells(direction), direction
    assert cells[0] == direction and cells[-1] == (0, 0) and len(set(cells)) == len(cells)
    for y, x in cells:
        along = (y * dy + x * dx) / (dy * dy + dx * dx)
        assert 0 <= along <= 1 and math.hypot(y - along * dy, x - along * dx) < 1
    steps = [max(abs(y - other_y), abs(x - other_x)) for (y, x), (other_y, other_x) in itertools.pairwise(cells)]
    assert max(steps) <= 2 and len(cells) >= max(abs(dy), abs(dx)) + 1


@given(STEPS)
def test_the_way_back_and_mirrored_paths_are_the_same(direction: tuple[int, int]) -> None:
    """A path seen from its far end is the same line; so is one seen in a mirror."""
    dy, dx = direction
    back = {(dy - y, dx - x) for y, x in path_cells(direction)}
    assert back == set(path_cells(direction))
    assert {(y, -x) for y, x in path_cells((dy, -dx))} == set(path_cells(direction))


@pytest.mark.parametrize("radius", [2, 5, 10])
def test_directions_are_those_of_the_pairs_by_length(radius: int) -> None:
    """Shorter paths first, else in the order of the pairs."""
    directions, lengths = path_directions(radius), [len(path_cells(step)) for step in path_directions(radius)]
    assert sorted(directions) == sorted(pair_directions(radius)) and lengths == sorted(lengths)
    for length in set(lengths):
        alike = [step for step in pair_directions(radius) if len(path_cells(step)) == length]
        assert alike == [step for step in directions if len(path_cells(step)) == length]


def brute_maximum(maps: torch.Tensor, directions: list[tuple[int, int]], radius: int) -> torch.Tensor:
    """One path after the other."""
    reach, (count, height, width) = radius - 1, maps.shape
    rows, columns = range(height - reach), range(reach, width - reach)
    return torch.stack([
        torch.stack([
            torch.stack([maps[b, y + dy, x + dx] for dy, dx in path_cells(direction)]).amax()
            for direction in directions for y in rows for x in columns
        ]) for b in range(count)
    ]).view(count, len(directions), len(rows), len(columns))  # fmt: skip


@pytest.mark.parametrize("radius", [2, 4])
def test_the_maximum_and_its_gradient(radius: int) -> None:
    """Equal to one path after the other."""
    torch.manual_seed(0)
    maps, directions = torch.rand(2, 7, 9, dtype=torch.float64, requires_grad=True), path_directions(radius)
    found, expected = (function(maps, directions, radius) for function in (path_maximum, brute_maximum))
    assert torch.equal(found, expected)
    weights = torch.rand_like(found)
    gradients = [torch.autograd.grad((values * weights).sum(), maps)[0] for values in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_of_equal_cells_the_first_gets_the_gradient() -> None:
    """It is not divided: an edge map starts almost flat, and the reference's pooling picks one cell, too."""
    maps = torch.ones(1, 2, 5, requires_grad=True)
    path_maximum(maps, [(1, 1)], 2).sum().backward()
    expected = torch.zeros(1, 2, 5)
    expected[0, 1, 2:5] = 1  # the far ends
    assert torch.equal(maps.grad, expected)


def test_displacements_of_pairs() -> None:
    """Source minus other end, for both components."""
    maps, directions = torch.randn(2, 2, 6, 9), path_directions(3)
    found = pair_displacements(maps, directions, 3)
    assert found.shape == (2, 2, len(directions), 4, 5)
    for number, direction in enumerate(directions):
        assert torch.equal(found[:, :, number], window(maps, 3) - window(maps, 3, direction))
