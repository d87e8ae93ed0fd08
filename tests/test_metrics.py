"""The one-pass sweep must equal one argmax per threshold, whatever the scores are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.run.errors import UserError
from common.score.counts import ConfusionCounts, LabelRangeError, SweepCounts, counts_by_argmax, first_argmax

HUNDREDTHS = np.arange(81) / 100
MASK, ZEROS, NAN = np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.float32), np.full((2, 2), np.nan, np.float32)
GRIDS = (
    HUNDREDTHS,
    np.arange(100) / 100,
    np.array([0.3]),
    np.array([0.0, 1e-7, 0.5, 0.5000001, 3.0]),  # closer together than a table of cells can tell apart
    np.array([0.1, 0.25, 0.2500001, 0.9]),
    np.array([0.0, 1e6]),
)


def scores_near(thresholds: np.ndarray, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Scores on, just above and just below thresholds, ordinary ones, and ones out of range."""
    on = thresholds.astype(np.float32)[rng.integers(len(thresholds), size=shape)]
    odd = np.array([-1, 0, 0, 1, 1.5, np.inf, -np.inf, 1e-40], np.float32)
    choices = [
        on,
        np.nextafter(on, np.float32(np.inf)),
        np.nextafter(on, np.float32(-np.inf)),
        rng.random(shape, dtype=np.float32),
        rng.choice(odd, size=shape),
    ]
    return np.choose(rng.integers(len(choices), size=shape), choices).astype(np.float32)


def assert_equal_to_argmax(images: list, num_labels: int, thresholds: np.ndarray) -> None:
    first, *others = (added(image, num_labels, thresholds) for image in images)
    sweep = sum(others, first)
    slow = [counts_by_argmax(*image, num_labels, thresholds) for image in images]
    for counted, expected in zip((sweep.correct, sweep.predicted, sweep.truth), zip(*slow, strict=True), strict=True):
        np.testing.assert_array_equal(counted, sum(expected))
        assert counted.dtype == np.int64


def added(image: tuple, num_labels: int, thresholds: np.ndarray) -> SweepCounts:
    counts = SweepCounts(num_labels, thresholds)
    counts.add(*image)
    return counts


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_labels=st.integers(2, 30),
    classes=st.integers(0, 5),
    grid=st.sampled_from(GRIDS),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    ties=st.booleans(),
)
def test_sweep_equals_argmax(
    seed: int, num_labels: int, classes: int, grid: np.ndarray, height: int, width: int, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(2):
        keys = rng.permutation(num_labels - 1)[:classes].tolist()  # not in order
        maps = {key: scores_near(grid, rng, (height, width)) for key in keys}
        if ties and len(keys) > 1:
            maps[keys[1]] = maps[keys[0]].copy()
        images.append((maps, rng.choice([*range(num_labels), 255], size=(height, width)).astype(np.uint8)))
    assert_equal_to_argmax(images, num_labels, grid)


def test_sweep_of_many_classes_of_a_large_set() -> None:
    rng = np.random.default_rng(0)
    seed = {key: np.round(rng.random((40, 50), dtype=np.float32), 2) for key in range(0, 80, 8)}
    assert_equal_to_argmax([(seed, rng.integers(0, 81, (40, 50)).astype(np.uint8))], 81, HUNDREDTHS)


def test_ties_go_to_background_and_to_the_lower_class() -> None:
    value = np.full((1, 1), 0.3, np.float32)
    counts = SweepCounts(4, [0.29, 0.3])
    counts.add({2: value, 0: value}, np.array([[1]], np.uint8))
    assert counts.predicted.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    assert counts.correct.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]


def test_scores_by_hand() -> None:
    counts = SweepCounts(3, [0.5])
    counts.add({0: np.array([[0.6, 0.6, 0.1, 0.9]], np.float32)}, np.array([[1, 0, 1, 255]], np.uint8))
    scores = counts.scores()
    np.testing.assert_allclose(scores.iou, [[0, 100 / 3, 0]], atol=1e-7)
    np.testing.assert_allclose(scores.precision, [[0, 1 / 2, 0]], atol=1e-9)
    np.testing.assert_allclose(scores.recall, [[0, 1 / 2, 0]], atol=1e-9)
    np.testing.assert_allclose([scores.miou[0], scores.mean_precision[0]], [100 / 9, 1 / 6], atol=1e-7)


def test_an_empty_seed_is_background() -> None:
    assert_equal_to_argmax([({}, np.array([[0, 1, 255, 0]], np.uint8))], 3, HUNDREDTHS)


@pytest.mark.parametrize("seed, gt, error, words", [
    ({0: NAN}, MASK, UserError, "NaN"),
    ({0: ZEROS, 1: NAN}, MASK, UserError, "NaN"),
    ({0: NAN, 1: ZEROS}, MASK, UserError, "NaN"),
    ({0: np.zeros((2, 3), np.float32)}, MASK, UserError, r"\(2, 3\).*mask of \(2, 2\)"),
    ({2: ZEROS}, MASK, LabelRangeError, "0 to 1"),
    ({-1: ZEROS}, MASK, LabelRangeError, "0 to 1"),
    ({}, MASK + np.uint8(3), LabelRangeError, "label 3"),
    ({}, MASK.astype(np.int32), UserError, "uint8"),
])  # fmt: skip
def test_bad_input_is_named(seed: dict, gt: np.ndarray, error: type, words: str) -> None:
    counts = SweepCounts(3, [0.1, 0.2])
    with pytest.raises(error, match=words):
        counts.add(seed, gt)
    assert counts.predicted.sum() == 0


@pytest.mark.parametrize("thresholds", [[], [0.2, 0.1], [0.1, 0.1], [-0.1, 0.1], [0.1, np.inf], [0.1, 0.1 + 1e-12]])
def test_unusable_thresholds(thresholds: list[float]) -> None:
    with pytest.raises(UserError, match="thresholds"):
        SweepCounts(3, thresholds)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 20), st.sampled_from([np.uint8, np.int64, np.int16]))
def test_confusion_counts(seed: int, num_labels: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    gt, prediction = rng.choice([*range(num_labels), 255], size=(2, 7, 8))
    counts = ConfusionCounts(num_labels)
    counts.add(prediction.astype(dtype), gt.astype(np.uint8))
    for true in range(num_labels):
        for label in range(num_labels):
            assert counts.matrix[true, label] == np.sum((gt == true) & (prediction == label))
        assert counts.matrix[true].sum() == np.sum(gt == true)
    assert ((counts + counts).matrix == 2 * counts.matrix).all()


@pytest.mark.parametrize("value", [-1, 3, 254, 256, 1000])
def test_confusion_of_a_label_that_does_not_exist(value: int) -> None:
    with pytest.raises(LabelRangeError, match="0 to 2"):
        ConfusionCounts(3).add(np.full((2, 2), value), np.zeros((2, 2), np.uint8))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_labels=st.integers(1, 6), present=st.integers(0, 6))
def test_first_argmax_equals_a_stack_with_zeros(seed: int, num_labels: int, present: int) -> None:
    rng = np.random.default_rng(seed)
    stack = np.zeros((num_labels, 4, 5), np.float32)
    scores = {}
    for key in rng.permutation(num_labels)[:present].tolist():
        stack[key] = scores[key] = rng.integers(-2, 3, size=(4, 5)).astype(np.float32)  # ties, also with absent labels
    labels = first_argmax(scores, num_labels, (4, 5))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, stack.argmax(axis=0))
