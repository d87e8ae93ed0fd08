"""CRT's boxes: of maps with one or several regions, of the data set in the square, and how they overlap."""

from itertools import product

import numpy as np
import pytest

from common.score.boxes import stretched
from methods.crt.boxes import NO_BOX, cam_box, overlap, true_box


def blocks(side: int, *regions: tuple[int, int, int, int, float]) -> np.ndarray:
    """A map of zeros with rectangles: x1, y1, x2, y2 (exclusive) and their value."""
    cam = np.zeros((side, side), dtype=np.float32)
    for x1, y1, x2, y2, value in regions:
        cam[y1:y2, x1:x2] = value
    return cam


def enlarged(cam: np.ndarray, side: int) -> np.ndarray:
    """Bilinear with half-pixel centres and repeated borders, in float64: what the rule says, pixel by pixel."""
    result = np.empty((side, side))
    scale = np.array(cam.shape) / side
    for y, x in product(range(side), repeat=2):
        place = ((np.array([y, x]) + 0.5) * scale - 0.5).clip(0, np.array(cam.shape) - 1)
        low = np.floor(place).astype(int)
        high, (dy, dx) = np.minimum(low + 1, np.array(cam.shape) - 1), place - low
        top = cam[low[0], low[1]] * (1 - dx) + cam[low[0], high[1]] * dx
        bottom = cam[high[0], low[1]] * (1 - dx) + cam[high[0], high[1]] * dx
        result[y, x] = top * (1 - dy) + bottom * dy
    return result


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.37, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_a_single_region_has_the_box_around_all_pixels_above_the_threshold(seed: int, threshold: float) -> None:
    """Recounted from a resize by hand; the two resizes may round a pixel to either side."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:9, :7] - rng.uniform(2, 6, (2, 1, 1))
    cam = np.exp(-(y**2) / rng.uniform(2, 9) - x**2 / rng.uniform(2, 9)).astype(np.float32)
    large = enlarged(cam, 48)
    grey = np.floor((large - large.min()) / (large.max() - large.min()) * 255)
    rows, columns = np.nonzero(grey > int(threshold * 255))
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(cam_box(cam, 48, threshold), expected, rtol=0, atol=1)
    np.testing.assert_allclose(stretched(cam, 48), (large - large.min()) / (large.max() - large.min()), atol=1e-5)


def test_what_equals_the_threshold_lies_outside() -> None:
    """After the map was truncated to whole steps of 255: 25 is not above int(0.1 * 255)."""
    core = (3, 3, 5, 5, 1.0)
    assert cam_box(blocks(10, (1, 1, 9, 9, 25.9 / 255), core), 10, 0.1).tolist() == [3, 3, 5, 5]
    assert cam_box(blocks(10, (1, 1, 9, 9, 26.1 / 255), core), 10, 0.1).tolist() == [1, 1, 9, 9]
    assert cam_box(blocks(10, (1, 1, 9, 9, 0.99 / 255), core), 10, 0.0).tolist() == [3, 3, 5, 5]
    negative = blocks(10, core) - 7  # only differences count
    assert cam_box(negative, 10, 0.1).tolist() == [3, 3, 5, 5]


def test_the_largest_region_wins_however_weak() -> None:
    """By the area that its outline encloses, holes included; corners that touch join regions."""
    assert cam_box(blocks(20, (1, 1, 6, 6, 1.0), (8, 9, 18, 16, 0.4)), 20, 0.1).tolist() == [8, 9, 18, 16]
    assert cam_box(blocks(20, (1, 1, 6, 6, 1.0), (8, 9, 18, 16, 0.4)), 20, 0.5).tolist() == [1, 1, 6, 6]
    ring = blocks(20, (0, 0, 9, 9, 1.0), (1, 1, 8, 8, 0.0), (11, 11, 18, 18, 1.0))  # fewer pixels, larger area
    assert cam_box(ring, 20, 0.1).tolist() == [0, 0, 9, 9]
    assert cam_box(blocks(20, (2, 2, 5, 5, 1.0), (5, 5, 9, 9, 1.0)), 20, 0.1).tolist() == [2, 2, 9, 9]


def test_maps_without_a_region() -> None:
    """A constant map has the reference's box of none; one cell is a region like any other."""
    for value in (0.0, 3.0, -1.0):
        assert tuple(cam_box(np.full((4, 4), value, dtype=np.float32), 16, 0.1)) == NO_BOX
    assert cam_box(blocks(8, (6, 2, 7, 3, 1.0)), 8, 0.1).tolist() == [6, 2, 7, 3]


def test_true_boxes_in_the_square() -> None:
    """Fractions are cut off before and after the corners are scaled; the last pixel is the limit."""
    assert true_box(np.array([60.9, 27.0, 325.9, 304.0]), (500, 347), 224).tolist() == [26, 17, 172, 213]
    assert true_box(np.array([0, 0, 100, 50]), (100, 50), 224).tolist() == [0, 0, 223, 223]
    assert true_box(np.array([99.0, 49.0, 40.0, 40.0]), (100, 50), 64).tolist() == [63, 62, 63, 63]


def test_overlap_counts_pixels() -> None:
    """Both corners belong to a box; recounted with sets of pixels, boxes that do not touch included."""
    rng, disjoint = np.random.default_rng(0), 0
    for _ in range(50):
        corners = rng.integers(0, 12, (5, 2, 2))
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        pixels = [set(product(range(x1, x2 + 1), range(y1, y2 + 1))) for x1, y1, x2, y2 in boxes.tolist()]
        found, own = overlap(boxes[0], boxes[1:]), pixels[0]
        for iou, iog, iob, other in zip(*found, pixels[1:], strict=True):
            common = len(own & other)
            disjoint += not common
            assert (iou, iog, iob) == (common / len(own | other), common / len(other), common / len(own))
    assert disjoint > 10
