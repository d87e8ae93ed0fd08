"""PCSS's importance masks against the reference's bookkeeping, written out (spec 3.2)."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from methods.pcss.config import FIMConfig
from methods.pcss.fim import wanted_labels
from methods.pcss.frequency import half_plane
from methods.pcss.importance import FrequencyImportance
from tests.helpers import assert_same

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES, SIZE, GRID = 3, 16, 4


def importance(**config: Any) -> FrequencyImportance:
    """Of small images; no round yet."""
    return FrequencyImportance(CLASSES, SIZE, FIMConfig(block=4, **config))


def losses(seed: int, *absent: int) -> Tensor:
    """A round's class losses (C, g, g), some classes without any."""
    values = 30 * torch.rand(CLASSES, GRID, GRID, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values[list(absent)] = 0
    return values


def measured(state: FrequencyImportance, epoch: int, total: Tensor) -> dict[str, Tensor]:
    """A whole round."""
    state.begin_round(epoch)
    state.add(total, 1)
    return state.finish_round()


class Reference:
    """Masks, running maxima and the fallback as the reference keeps them, class by class."""

    def __init__(self) -> None:
        self.current = self.previous = None
        self.highest = torch.zeros(CLASSES)

    def finish(self, total: Tensor) -> None:
        wide = F.interpolate(total[None].float(), (SIZE, SIZE), mode="bicubic", align_corners=False)[0]
        new = torch.zeros(CLASSES, SIZE, SIZE)
        for k in range(CLASSES):
            self.highest[k] = max(self.highest[k], wide[k].max())
            if wide[k].max() > 0:
                new[k] = (wide[k] - wide[k].min()) / (self.highest[k] - wide[k].min())
            elif self.previous is not None:  # where the first round has none, the reference stops with an error
                new[k] = self.previous[k]
        self.previous, self.current = (new if self.current is None else self.current), new


def literally_wanted(labels: Tensor, need: int, batch_size: int) -> Tensor:
    """Which labels the reference's loop over batches uses, the last batch kept."""
    wanted, left = torch.zeros(labels.shape, dtype=torch.bool), [need] * labels.shape[1]
    for start in range(0, len(labels), batch_size):
        if not any(left):
            break
        batch = range(start, min(start + batch_size, len(labels)))
        kept = [i for i in batch if any(labels[i, k] > 0 and left[k] > 0 for k in range(len(left)))]
        for k in range(len(left)):
            rows = [i for i in kept if labels[i, k] > 0]
            for i in rows[: min(len(rows), left[k])]:
                wanted[i, k] = True
            left[k] -= min(len(rows), left[k])
    return wanted


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(0, 40), classes=st.integers(1, 5), need=st.integers(1, 6), batch_size=st.integers(1, 9),
    density=st.sampled_from([0.0, 0.1, 0.4, 1.0]), without=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_wanted_labels_are_those_of_the_loop_over_batches(
    images: int, classes: int, need: int, batch_size: int, density: float, without: bool, seed: int
) -> None:
    """At once or batch by batch, for batches of any size, images without labels and a class without images."""
    labels = (torch.rand(images, classes, generator=torch.Generator().manual_seed(seed)) < density).float()
    if without:
        labels[:, 0] = 0
    expected, left = literally_wanted(labels, need, batch_size), torch.full((classes,), need)
    assert torch.equal(wanted_labels(labels, left), expected)
    parts = []
    for batch in labels.split(batch_size):
        parts.append(wanted_labels(batch, left))
        left = left - parts[-1].sum(0)
    assert torch.equal(torch.cat(parts), expected) and (left >= 0).all()


@settings(max_examples=40, deadline=None)
@given(absent=st.lists(st.sets(st.integers(0, CLASSES - 1)), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_masks_are_the_references(absent: list[set[int]], seed: int) -> None:
    """After any rounds, in which any classes may not be measured."""
    state, reference = importance(), Reference()
    for number, classes in enumerate(absent):
        total = losses(100 * seed + number, *classes)
        ratios = measured(state, number, total)
        reference.finish(total)
        torch.testing.assert_close(state.current, reference.current, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(state.previous, reference.previous, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(state.max_loss, reference.highest)
        assert ratios["min_ratio"].isfinite().tolist() == [k not in classes for k in range(CLASSES)]
        assert state.rounds == number + 1 and state.round_epoch == -1 and state.done == 0


def test_a_class_that_is_not_measured_falls_back() -> None:
    """On nothing in the first round, on the round before in the second, later on the mask of two rounds ago."""
    state, masks = importance(), []
    for number, classes in enumerate([(0,), (0, 1), (1,), (1,), (2,)]):
        measured(state, number, losses(number, *classes))
        masks.append(state.current.clone())
    assert not masks[0][0].any() and not masks[1][0].any() and masks[2][0].any()
    assert torch.equal(masks[1][1], masks[0][1]) and masks[0][1].any()
    assert torch.equal(masks[2][1], masks[0][1]) and torch.equal(masks[3][1], masks[1][1])
    assert torch.equal(masks[4][2], masks[2][2]) and not torch.equal(masks[4][2], masks[3][2])


def test_masks_relate_to_the_running_maximum() -> None:
    """The largest round has masks from 0 to 1; half its losses give a mask that does not reach 1."""
    state, total = importance(), losses(0)
    ratios = measured(state, 0, total)
    assert torch.equal(ratios["max_ratio"], torch.ones(CLASSES)) and (ratios["min_ratio"] < 1).all()
    for extreme, expected in ((state.current.amin((1, 2)), 0.0), (state.current.amax((1, 2)), 1.0)):
        torch.testing.assert_close(extreme, torch.full((CLASSES,), expected))
    highest = state.max_loss.clone()
    ratios = measured(state, 3, total / 2)
    torch.testing.assert_close(ratios["max_ratio"], torch.full((CLASSES,), 0.5))
    assert torch.equal(state.max_loss, highest) and (state.current.amax((1, 2)) < 0.6).all()
    assert not state.current.amin((1, 2)).any()
    measured(state, 6, total * 2)
    torch.testing.assert_close(state.max_loss, 2 * highest)


def test_equal_losses_of_all_blocks_suppress_nothing() -> None:
    """Where the reference divides 0 by 0."""
    state = importance()
    measured(state, 0, torch.full((CLASSES, GRID, GRID), 2.0))
    assert not state.current.any() and torch.equal(state.kept(torch.eye(CLASSES)), torch.ones(3, SIZE, SIZE // 2 + 1))


@pytest.mark.parametrize(("start", "rounds"), [(2, range(2, 57, 3)), (3, range(3, 58, 3))])
def test_rounds_of_the_papers_schedules(start: int, rounds: range) -> None:
    """VOC and COCO: none after the last epoch, which nothing would use; suppression begins after the first round."""
    state = importance(start_epoch=start)
    assert [epoch for epoch in range(60) if state.is_due_after(epoch, 60)] == list(rounds)
    assert [epoch for epoch in range(60) if state.is_used_in(epoch)] == list(range(start + 1, 60))


def test_no_round_is_wasted_on_the_end() -> None:
    """With an interval that ends on the last epoch."""
    state = importance(start_epoch=0, interval=2)
    assert [epoch for epoch in range(5) if state.is_due_after(epoch, 5)] == [0, 2]


def restored(state: FrequencyImportance, into: FrequencyImportance | None = None) -> FrequencyImportance:
    """A copy by way of `state_dict`."""
    other = importance() if into is None else into
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    return other


@pytest.mark.parametrize("rounds", [0, 1, 2])
@pytest.mark.parametrize("in_the_middle", [False, True])
def test_a_restored_state_goes_on_bitwise(rounds: int, in_the_middle: bool) -> None:
    """Before any round, between two and inside one: masks, maxima, weights, totals."""
    state, labels = importance(), torch.tensor([[1.0, 1, 0], [0, 0, 1]])
    for number in range(rounds):
        measured(state, number, losses(number, number))
    if in_the_middle:
        state.begin_round(rounds)
        state.add(losses(7), 3)
    other = restored(state)
    assert other.done == state.done == 3 * in_the_middle
    assert_same(other.state_dict(), state.state_dict())
    assert torch.equal(other.kept(labels), state.kept(labels))
    for each in (state, other):
        each.begin_round(rounds)
        each.add(losses(8, 0), 2)
        each.finish_round()
    assert_same(other.state_dict(), state.state_dict())


def test_a_state_in_use_can_be_restored_over() -> None:
    """Nothing of it is left, whatever it shares between its own parts."""
    state, used = importance(), importance()
    measured(state, 0, losses(0))
    measured(state, 1, losses(1))
    measured(used, 0, losses(2))
    assert_same(restored(state, used).state_dict(), state.state_dict())


def test_a_round_under_other_settings_begins_anew() -> None:
    """Its images would be others; finished rounds stay."""
    state, other = importance(), importance(images_per_class=7)
    measured(state, 0, losses(0))
    state.begin_round(1)
    state.add(losses(1), 3)
    restored(state, other)
    assert (other.rounds, other.round_epoch, other.done) == (1, -1, 0) and torch.equal(other.current, state.current)
    other.begin_round(1)
    assert other.totals.abs().sum() == 0


def test_a_round_begins_with_nothing_or_goes_on() -> None:
    """Going on is for the same epoch only."""
    state = importance()
    state.begin_round(2)
    state.add(losses(0), 4)
    state.begin_round(2)
    assert torch.equal(state.totals, losses(0)) and state.done == 4
    state.add(losses(1), 3)
    assert torch.equal(state.totals, losses(0) + losses(1)) and state.done == 7
    state.begin_round(5)
    assert not state.totals.any() and state.done == 0 and state.round_epoch == 5


def kept_state() -> tuple[FrequencyImportance, Tensor]:
    """Masks after a round, and labels with one image that has none."""
    state = importance()
    measured(state, 0, losses(0))
    return state, torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])


def test_an_image_keeps_the_mean_of_its_labels() -> None:
    """Of 1 - hif, over the labels; all of its spectrum without any."""
    state, labels = kept_state()
    found = state.kept(labels)
    assert found.shape == (4, SIZE, SIZE // 2 + 1) and torch.equal(found[1], torch.ones(SIZE, SIZE // 2 + 1))
    for row in (0, 2, 3):
        classes = labels[row].nonzero().flatten()
        torch.testing.assert_close(found[row], half_plane((1 - state.current[classes]).mean(0)))


def test_nothing_is_suppressed_before_the_first_round() -> None:
    """All weights are 1."""
    assert torch.equal(importance().kept(torch.eye(CLASSES)), torch.ones(CLASSES, SIZE, SIZE // 2 + 1))


def test_weights_of_a_spectrum_stay_float32_under_autocast() -> None:
    """As its numbers do: bf16 would round them to three digits."""
    state, labels = kept_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = state.kept(labels)
    assert found.dtype == torch.float32 and torch.equal(found, state.kept(labels))
