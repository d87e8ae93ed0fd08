"""MaxBoxAcc and MaxBoxAccV2 at all thresholds equal a second implementation, from the definitions of their paper."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.score.boxes import stretched
from methods.crt.max_box import THRESHOLDS, box_sweep, hit_intervals, max_box_scores, tuned_hits


def regions(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """The 8-connected regions of a mask, by a flood of pixels."""
    left = set(map(tuple, np.argwhere(mask).tolist()))
    found = []
    while left:
        seed = left.pop()
        region, waiting = {seed}, [seed]
        while waiting:
            y, x = waiting.pop()
            around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= around
            region |= around
            waiting += around
        found.append(region)
    return found


def iou(box: tuple, other: np.ndarray) -> float:
    """Intersection over union, where a side from a to b has b - a + 1 pixels."""
    width = min(box[2], other[2]) - max(box[0], other[0]) + 1
    height = min(box[3], other[3]) - max(box[1], other[1]) + 1
    common = max(width, 0) * max(height, 0)
    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, other)]
    return common / (sum(areas) - common)


def box_of(region: set) -> tuple[int, int, int, int]:
    rows, columns = zip(*region, strict=True)
    return min(columns), min(rows), max(columns) + 1, max(rows) + 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_all_boxes_equal_a_flood_of_pixels(seed: int) -> None:
    """All outer contours are the regions; a hole's contour adds a box within its region's, which here is added, too."""
    rng = np.random.default_rng(seed)
    cam = rng.random((4, 5), dtype=np.float32)
    truth = np.sort(rng.integers(0, 12, (2, 2, 2)), axis=1).reshape(2, 4)
    sweep = box_sweep(cam, 12, truth).ious
    grey = (stretched(cam, 12) * 255).astype(np.uint8)
    for index in range(0, 100, 7):
        inside = grey > int(THRESHOLDS[index] * int(grey.max()))
        boxes = [box_of(region) for region in regions(inside)]
        best = max(iou(box, other) for box in boxes for other in truth)
        if not holes(inside):
            assert sweep[1, index] == pytest.approx(best)
        assert sweep[1, index] >= best - 1e-12 and sweep[1, index] >= sweep[0, index]
        if len(boxes) == 1:
            assert sweep[0, index] == pytest.approx(best)


def holes(mask: np.ndarray) -> bool:
    """Whether background is enclosed: 4-connected parts of it that do not reach the border."""
    padded = np.pad(~mask, 1, constant_values=True)
    reached = np.zeros_like(padded)
    reached[0, 0] = True
    while True:
        grown = reached.copy()
        for axis in (0, 1):
            for step in (-1, 1):
                grown |= np.roll(reached, step, axis)
        grown &= padded
        if (grown == reached).all():
            return bool((padded & ~reached).any())
        reached = grown


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_scores_equal_loops_over_images_and_thresholds(seed: int, images: int) -> None:
    sweeps = np.random.default_rng(seed).random((images, 2, 100)).round(1)
    found = max_box_scores(sweeps)
    shares = [sum(image[0, t] >= 0.5 for image in sweeps) / images for t in range(100)]
    assert found["max_box_acc"] == pytest.approx(100 * max(shares))
    assert found["max_box_threshold"] == THRESHOLDS[shares.index(max(shares))]
    parts = []
    for level in (0.3, 0.5, 0.7):
        shares = [sum(image[1, t] >= level for image in sweeps) / images for t in range(100)]
        parts.append(max(shares))
        assert found[f"max_box_acc_v2_{100 * level:.0f}"] == pytest.approx(100 * max(shares))
    assert found["max_box_acc_v2"] == pytest.approx(100 * np.mean(parts))
    hits = tuned_hits(sweeps, found)
    assert hits["box_acc"].mean() == pytest.approx(found["max_box_acc"] / 100)
    assert hits["box_acc_v2"].mean() == pytest.approx(found["max_box_acc_v2"] / 100)


def test_a_constant_map_has_no_box() -> None:
    sweep = box_sweep(np.ones((3, 3), np.float32), 10, np.array([[0, 0, 9, 9]])).ious
    np.testing.assert_allclose(sweep, 4 / 100)


def test_intervals_of_shares() -> None:
    low, high = hit_intervals({"all": np.ones(20), "half": np.arange(20) % 2})["half"]
    assert 20 < low < 50 < high < 80
    assert hit_intervals({"all": np.ones(20)}) == {"all": [100, 100]}
