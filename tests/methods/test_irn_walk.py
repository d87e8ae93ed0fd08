"""From seeds to masks: the grid, boundaries of an image and its mirror image, the walk between boundaries, labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.data.seeds import write_seed
from common.run.errors import UserError
from methods.irn.config import WalkConfig
from methods.irn.paths import path_cells, path_directions
from methods.irn.walk import boundaries, enlarged, grid_size, label_map, read_grid_maps, walk_mask, walked

pytestmark = pytest.mark.usefixtures("one_thread")


def dense_walk(edge: Tensor, scores: Tensor, config: WalkConfig) -> Tensor:
    """The definition: a dense matrix, squared again and again."""
    height, width = edge.shape
    weights = torch.eye(height * width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            for dy, dx in path_directions(config.radius):
                if not (y + dy < height and 0 <= x + dx < width):
                    continue
                largest = max(
                    float(edge[y + cy, x + cx]) if 0 <= x + cx < width else 1.0 for cy, cx in path_cells((dy, dx))
                )
                one, two = y * width + x, (y + dy) * width + x + dx
                weights[one, two] = weights[two, one] = (1 - largest) ** config.beta
    transition = weights / weights.sum(0)
    for _ in range(config.log2_rounds):
        transition = transition @ transition
    return ((scores * (1 - edge)).double().flatten(1) @ transition).view(scores.shape)


@pytest.mark.parametrize(("radius", "beta", "rounds"), [(5, 10.0, 8), (3, 4.0, 2), (2, 1.0, 0)])
def test_the_walk_is_the_dense_one(radius: int, beta: float, rounds: int) -> None:
    """Every cell is a source, those at the border, too; both components of a class stay apart."""
    generator = torch.Generator().manual_seed(1)
    edge, scores = 0.7 * torch.rand(9, 12, generator=generator), torch.rand(3, 9, 12, generator=generator)
    config = WalkConfig(radius, beta, rounds)
    found = walked(edge, scores, config)
    torch.testing.assert_close(found.double(), dense_walk(edge, scores, config), rtol=2e-4, atol=1e-6)
    for number in range(3):
        torch.testing.assert_close(walked(edge, scores[number : number + 1], config)[0], found[number])


def test_scores_spread_evenly_where_there_is_no_boundary() -> None:
    """What is constant stays so, and after a long walk everything nearly is."""
    edge, config = torch.zeros(8, 10), WalkConfig()
    constant = torch.full((1, 8, 10), 0.3)
    torch.testing.assert_close(walked(edge, constant, config), constant)
    spot = torch.zeros(1, 8, 10)
    spot[0, 2, 3] = 1
    spread = walked(edge, spot, WalkConfig(log2_rounds=12))
    assert float(spread.max()) < 1.2 * float(spread.min()) and float(spread.min()) > 0


def test_a_boundary_keeps_scores_apart() -> None:
    """A class never gets across a closed line, however long the walk; nothing starts on the line itself."""
    edge, scores = torch.zeros(10, 14), torch.zeros(2, 10, 14)
    edge[:, 6] = 1
    scores[0, 5, 2], scores[1, :, 6] = 1, 1
    found = walked(edge, scores, WalkConfig())
    assert not found[0, :, 6:].any() and (found[0, :, :6] > 0).all()
    assert not found[1].any()


def test_boundaries_of_mirrored_images_are_mirrored() -> None:
    """Image and mirror image play the same part, each on a canvas of its own; larger images get a larger canvas."""
    seen: list[tuple[int, ...]] = []

    def logits_of(images: Tensor) -> Tensor:
        """Not symmetric: depends on what is to the right of a cell."""
        seen.append(tuple(images.shape[-2:]))
        return F.avg_pool2d(images[:, :1] + 0.5 * images[:, :1].roll(-3, -1), 4)

    images = torch.randn(2, 3, 24, 40)
    found, mirrored = boundaries(logits_of, images, 64), boundaries(logits_of, images.flip(-1), 64)
    assert found.shape == (2, 6, 10) and set(seen) == {(64, 64)}
    torch.testing.assert_close(mirrored, found.flip(-1))
    plain, reverse = (logits_of(F.pad(view, (0, 24, 0, 40)))[:, 0, :6, :10] for view in (images, images.flip(-1)))
    torch.testing.assert_close(found, ((plain + reverse.flip(-1)) / 2).sigmoid())
    seen.clear()
    assert boundaries(logits_of, torch.randn(1, 3, 70, 33), 64).shape == (1, 18, 9) and set(seen) == {(96, 64)}


@pytest.mark.parametrize(("side", "cells"), [(1, 1), (4, 1), (5, 2), (500, 125), (375, 94)])
def test_the_grid_covers_the_image(side: int, cells: int) -> None:
    """A cell for every four pixels begun."""
    assert grid_size((side, 8)) == (cells, 2)


def test_scores_are_divided_by_the_largest_of_all_classes() -> None:
    """Not each class by its own; the cut comes first, and nothing at all stays nothing."""
    scores = torch.zeros(2, 3, 3)
    scores[0, 0, 0], scores[1, 1, 1], scores[1, 2, 2] = 0.2, 0.4, 8.0
    large = enlarged(scores, (6, 6))
    assert large.shape == (2, 6, 6) and float(large.max()) == 1
    assert float(large[0, 0, 0]) == pytest.approx(0.2 / (0.4 * 0.875**2))  # the last pixel is 7/8 of the way to a cell
    assert not enlarged(torch.zeros(1, 3, 3), (9, 9)).any()


def test_labels_of_scores() -> None:
    """Class index + 1 of the largest, the first of equal ones; background where none is above its score."""
    scores = torch.tensor([[[0.25, 0.3, 0.9, 0.0]], [[0.1, 0.3, 0.2, 0.26]]])
    labels = label_map(scores, [7, 79], 0.25)
    assert labels.tolist() == [[0, 8, 8, 80]] and labels.dtype == np.uint8


def test_the_mask_of_an_object_fills_its_outline() -> None:
    """A small seed within a closed boundary becomes the whole object; without classes all is background."""
    edge, scores = torch.full((16, 20), 0.02), torch.zeros(1, 16, 20)
    y, x = torch.meshgrid(torch.arange(16), torch.arange(20), indexing="ij")
    distance = ((y - 8) ** 2 + (x - 9) ** 2).double().sqrt()
    edge[(distance > 4.5) & (distance < 6.2)] = 0.98
    scores[0][distance < 2] = 1
    mask = walk_mask(edge, [4], scores, (63, 78), WalkConfig())
    rows, columns = np.mgrid[:63, :78]
    radius = np.hypot(rows - 33.5, columns - 37.5)
    assert mask.shape == (63, 78) and (mask[radius < 16] == 5).all() and not mask[radius > 26].any()
    assert not walk_mask(edge, [], torch.zeros(0, 16, 20), (63, 78), WalkConfig()).any()


def test_full_seeds_are_averaged_over_cells(tmp_path: Path) -> None:
    """Each cell over the pixels it covers, those at the border over fewer; classes ascending."""
    maps = np.random.default_rng(0).random((2, 6, 9)).astype(np.float32)
    write_seed(tmp_path, "a", {9: maps[0], 3: maps[1]})
    keys, scores = read_grid_maps(tmp_path, "a", (6, 9), 20)
    assert keys == [3, 9] and scores.shape == (2, 2, 3)
    for number, values in enumerate((maps[1], maps[0])):
        expected = [[values[y : y + 4, x : x + 4].mean() for x in (0, 4, 8)] for y in (0, 4)]
        np.testing.assert_allclose(scores[number], expected, rtol=1e-6)


def test_strided_and_compact_seeds(tmp_path: Path) -> None:
    """Maps of the grid's size are taken as they are; the compact format is as good as any; no class is no map."""
    strided = np.random.default_rng(0).random((5, 6)).astype(np.float32)
    write_seed(tmp_path, "a", {2: strided})
    keys, scores = read_grid_maps(tmp_path, "a", (17, 24), 20)
    assert keys == [2] and np.array_equal(scores[0], strided)
    write_seed(tmp_path, "b", {1: np.full((16, 24), 0.5, np.float32)}, fmt="npz")
    assert read_grid_maps(tmp_path, "b", (16, 24), 20)[1].numpy() == pytest.approx(np.full((1, 4, 6), 0.5))
    write_seed(tmp_path, "c", {})
    keys, scores = read_grid_maps(tmp_path, "c", (17, 24), 20)
    assert keys == [] and scores.shape == (0, 5, 6)


def test_seeds_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """The file and both sizes are named."""
    write_seed(tmp_path, "a", {2: np.zeros((5, 6), np.float32)})
    with pytest.raises(
        UserError, match=r"a\.npy holds maps of \(5, 6\), but the image is of \(17, 30\).* grid of \(5, 8\)"
    ):
        read_grid_maps(tmp_path, "a", (17, 30), 20)
    with pytest.raises(UserError, match=r"a\.npy holds classes \[2\]; the data set has 0 to 1"):
        read_grid_maps(tmp_path, "a", (17, 24), 2)
    with pytest.raises(UserError, match="no seed of b"):
        read_grid_maps(tmp_path, "b", (17, 30), 20)
