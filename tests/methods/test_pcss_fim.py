"""Rounds of frequency importance against the reference's loops, and rounds that are shared or interrupted."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.data.loader import EpochBatches
from common.data.transforms import square_transform
from common.nets.options import ViTConfig
from common.run.device import Runtime
from common.run.options import RuntimeConfig
from common.run.processes import Processes
from methods.pcss.config import FIMConfig
from methods.pcss.fim import FIM, STEP_IMAGES, block_losses
from methods.pcss.frequency import block_filters
from methods.pcss.importance import FrequencyImportance
from methods.pcss.model import PCSS
from tests.helpers import assert_same
from tests.methods.test_pcss_importance import literally_wanted

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES, SIZE, BLOCK, GRID = 4, 32, 8, 4
NOBODY = 3  # a class without images
CONFIG = {"block": BLOCK, "images_per_class": 3, "batch_size": 50}


@pytest.fixture
def model() -> PCSS:
    """A seeded network with stochastic depth, in training, its logits far from 0."""
    torch.manual_seed(0)
    config = ViTConfig(img_size=SIZE, patch_size=8, embed_dim=16, depth=3, num_heads=2, drop_path=0.5)
    model = PCSS(config, CLASSES)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.train()


class Pictures:
    """Ten random images of several sizes, as much of an `ImageSet` as a round needs; notes which it is asked for."""

    def __init__(self) -> None:
        self.labels = np.zeros((10, CLASSES), np.float32)
        present = [(0,), (0, 1), (0,), (), (0, 2), (1,), (0, 1), (0,), (), (0, 2)]
        for row, classes in zip(self.labels, present, strict=True):
            row[list(classes)] = 1
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return len(self.labels)

    def load_image(self, index: int) -> Image.Image:
        """An image, always the same."""
        self.loaded.append(index)
        shape = (20 + 3 * index, 50 - 2 * index, 3)
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8))

    def pixels(self, order: list[int]) -> Tensor:
        """Images as the network sees them (n, 3, S, S)."""
        return torch.stack([square_transform(self.load_image(index), SIZE) for index in order])


@dataclass(frozen=True)
class OneOfTwo(Processes):
    """A process of two that is told nothing of the other: its sums are its own share."""

    world: int = 2

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Its own rows."""
        return rows


def runtime(processes: Processes | None = None, precision: str = "fp32") -> Runtime:
    """A CPU, images loaded in this process."""
    return Runtime(RuntimeConfig(device="cpu", num_workers=0, precision=precision), processes or Processes())


def round_of(pictures: Pictures, state: FrequencyImportance | None = None, processes: Processes | None = None) -> FIM:
    """What measures rounds over the pictures."""
    state = FrequencyImportance(CLASSES, SIZE, FIMConfig(**CONFIG)) if state is None else state
    return FIM(state, pictures, runtime(processes))


def never() -> bool:
    """No signal."""
    return False


def after(steps: int) -> Callable[[], bool]:
    """A signal that comes in the n-th step."""
    answers = [False] * (steps - 1) + [True]
    return lambda: answers.pop(0)


@torch.no_grad()
def literal_losses(model: PCSS, images: Tensor, wanted: Tensor) -> Tensor:
    """Class losses (C, g, g) by the reference's loop over rows and columns, in its own transforms."""
    written = torch.full((CLASSES, GRID, GRID), float("nan"))
    spectra = torch.fft.fftshift(torch.fft.fft2(images), dim=(-2, -1))
    for row in range(GRID):
        for column in range(GRID // 2 + 1):
            mask = torch.ones(GRID, GRID)
            blocks = [(row, column)]
            if column >= 1:
                blocks.append((GRID - row if row >= 1 else 0, GRID - column))
            for place in blocks:
                mask[place] = 0
            wide = mask.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
            out = model(torch.fft.ifft2(torch.fft.ifftshift(wide * spectra, dim=(-2, -1))).real)
            for k in range(CLASSES):
                rows = wanted[:, k]
                loss = sum(
                    F.binary_cross_entropy_with_logits(part[rows, k], torch.ones(int(rows.sum())), reduction="sum")
                    for part in (out.cls, out.pcls)
                )
                for place in blocks:
                    written[k][place] = loss
    return written


@pytest.mark.parametrize("batch_size", [1, 5, 12, 500])
def test_block_losses_are_those_of_the_reference_loop(model: PCSS, batch_size: int) -> None:
    """However many filtered images go through at once; only wanted labels count."""
    pictures, filters = Pictures(), block_filters(SIZE, BLOCK)
    images = pictures.pixels([0, 1, 4, 3, 6])
    wanted = torch.from_numpy(pictures.labels[[0, 1, 4, 3, 6]]) > 0
    wanted[1, 0] = False
    expected = literal_losses(model.eval(), images, wanted)
    found = block_losses(model, images, wanted, filters, batch_size, runtime())
    assert found.shape == (CLASSES, GRID, GRID) and not found[NOBODY].any()
    assert (expected[:NOBODY].amax((1, 2)) > 1.05 * expected[:NOBODY].amin((1, 2))).all()  # blocks do differ
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_block_losses_in_bf16_are_nearly_the_same(model: PCSS) -> None:
    """Summed in float32."""
    pictures, filters = Pictures(), block_filters(SIZE, BLOCK)
    images, wanted = pictures.pixels([0, 1, 4]), torch.from_numpy(pictures.labels[[0, 1, 4]]) > 0
    exact = block_losses(model.eval(), images, wanted, filters, 50, runtime())
    rough = block_losses(model, images, wanted, filters, 50, runtime(precision="bf16"))
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.1)


def test_a_round_is_the_brute_force_one(model: PCSS) -> None:
    """The first images of each class in a random order; images that no class needs are not even loaded."""
    pictures = Pictures()
    fim = round_of(pictures)
    totals: list[Tensor] = []
    finish = fim.importance.finish_round
    fim.importance.finish_round = lambda: (totals.append(fim.importance.totals.clone()), finish())[1]
    ratios = fim.measure(model, 5, never)
    order = list(pictures.loaded)
    wanted = literally_wanted(torch.from_numpy(pictures.labels[order]), CONFIG["images_per_class"], 4)
    assert wanted.any(1).all() and len(set(order)) == len(order) < 8 < STEP_IMAGES * 3
    assert wanted.sum(0).tolist() == [3, 3, 2, 0]
    expected = literal_losses(model.eval(), pictures.pixels(order), wanted)
    torch.testing.assert_close(totals[0].float(), expected, rtol=1e-4, atol=1e-4)
    by_hand = FrequencyImportance(CLASSES, SIZE, FIMConfig(**CONFIG))
    by_hand.add(totals[0], 0)
    by_hand.finish_round()
    assert torch.equal(fim.importance.current, by_hand.current) and not by_hand.current[NOBODY].any()
    assert ratios["min_ratio"].isfinite().tolist() == [True, True, True, False]


def test_rounds_see_fresh_orders(model: PCSS) -> None:
    """The same one for the same epoch."""
    orders = []
    for epoch in (2, 2, 5):
        pictures = Pictures()
        round_of(pictures).measure(model, epoch, never)
        orders.append(pictures.loaded)
    assert orders[0] == orders[1] != orders[2]


def test_the_order_of_a_round_is_not_that_of_its_epoch(model: PCSS) -> None:
    """Which the training batches had; images of a round are drawn anew."""
    pictures, batches = Pictures(), EpochBatches(10, 1, seed=0)
    batches.start_at(5)
    round_of(pictures).measure(model, 5, never)
    assert pictures.loaded != [index for ((_, index),) in batches if index in pictures.loaded]


def many(images_per_class: int = 9) -> FrequencyImportance:
    """A state whose rounds need all eight labelled images."""
    return FrequencyImportance(CLASSES, SIZE, FIMConfig(block=BLOCK, images_per_class=images_per_class, batch_size=50))


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("rounds", [0, 1])
def test_a_stopped_round_goes_on_bitwise(model: PCSS, step: int, rounds: int) -> None:
    """After any of its steps, the last one too; in the same process or from a copy of its state."""
    whole = many()
    for epoch in range(rounds + 1):
        round_of(Pictures(), whole).measure(model, epoch, never)
    stopped = many()
    if rounds:
        round_of(Pictures(), stopped).measure(model, 0, never)
    assert round_of(Pictures(), stopped).measure(model, rounds, after(step)) is None
    assert (stopped.done, stopped.round_epoch, stopped.rounds) == (STEP_IMAGES * step, rounds, rounds)
    resumed, rest = many(), Pictures()
    resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
    for state, pictures in ((stopped, Pictures()), (resumed, rest)):
        assert round_of(pictures, state).measure(model, rounds, never) is not None
        assert_same(state.state_dict(), whole.state_dict())
    assert len(rest.loaded) == 8 - STEP_IMAGES * step


def test_two_processes_share_a_round(model: PCSS) -> None:
    """What both add up to is the whole; they agree on what is done, also where one has no image left."""
    for labelled in (8, 6):
        states = []
        for processes in (Processes(), OneOfTwo(rank=0), OneOfTwo(rank=1)):
            pictures = Pictures()
            pictures.labels[[0, 1][: 8 - labelled]] = 0
            state = many()
            fim = round_of(pictures, state, processes)
            steps = -(-labelled // (STEP_IMAGES * processes.world))
            assert fim.measure(model, 0, after(steps)) is None and state.done == labelled
            states.append(state)
        whole, first, second = (state.totals for state in states)
        torch.testing.assert_close(first + second, whole, rtol=1e-5, atol=1e-5)
        assert bool(first.any()) and bool(second.any())


def test_a_last_step_may_have_no_image_for_a_process(model: PCSS) -> None:
    """It adds nothing there."""
    pictures = Pictures()
    pictures.labels[[0, 1, 2, 4, 5]] = 0  # three images are left: all of them the first process's
    states = []
    for processes in (Processes(), OneOfTwo(rank=0), OneOfTwo(rank=1)):
        states.append(many())
        assert round_of(pictures, states[-1], processes).measure(model, 0, after(1)) is None
    assert torch.equal(states[1].totals, states[0].totals) and not states[2].totals.any()
    assert [state.done for state in states] == [3, 3, 3]


def test_the_network_is_evaluated_without_gradients(model: PCSS) -> None:
    """In eval mode, stochastic depth off: twice the same; no parameter gets a gradient."""
    logits, seen = model.logits, []

    def look(images: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((model.training, torch.is_grad_enabled()))
        return logits(images)

    model.logits = look
    states = [many(), many()]
    for state in states:
        model.train()
        round_of(Pictures(), state).measure(model, 0, never)
    assert set(seen) == {(False, False)}
    assert torch.equal(states[0].current, states[1].current)
    assert not states[0].current.requires_grad and all(value.grad is None for value in model.parameters())


def test_a_round_leaves_the_random_streams_alone(model: PCSS) -> None:
    """What is trained after it draws the same numbers."""
    fim = round_of(Pictures())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    fim.measure(model, 0, never)
    assert torch.equal(torch.get_rng_state(), before)
