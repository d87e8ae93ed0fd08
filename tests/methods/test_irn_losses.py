"""IRN's losses: the definition pair by pair, what they reward, and their independence of the number of processes."""

import math

import pytest
import torch
from torch import Tensor

from common.masks.pairs import pair_labels
from methods.irn.config import IRNModelConfig, LossConfig
from methods.irn.losses import LOSS_TERMS, IRNStep, affinities, irn_losses
from methods.irn.model import IRN
from methods.irn.paths import path_cells, path_directions

pytestmark = pytest.mark.usefixtures("one_thread")
RADIUS = 3
DIRECTIONS = path_directions(RADIUS)


def losses_of(edge: Tensor, displacement: Tensor, labels: Tensor, **options: object) -> dict[str, Tensor]:
    """Losses of boundary logits (B, 1, h, w), displacements and labels."""
    affinity = affinities(edge, DIRECTIONS, RADIUS)
    return irn_losses(affinity, displacement, pair_labels(labels, DIRECTIONS, RADIUS), DIRECTIONS, RADIUS, **options)


def by_hand(edge: Tensor, displacement: Tensor, labels: Tensor) -> dict[str, float]:
    """The definition, one pair after the other."""
    reach, (count, _, height, width) = RADIUS - 1, edge.shape
    sums, pairs = dict.fromkeys(LOSS_TERMS, 0.0), {"bg": 0, "fg": 0, "neg": 0}
    boundary = edge.sigmoid()[:, 0]
    for b in range(count):
        for dy, dx in DIRECTIONS:
            for y in range(height - reach):
                for x in range(reach, width - reach):
                    one, two = int(labels[b, y, x]), int(labels[b, y + dy, x + dx])
                    if 255 in (one, two):
                        continue
                    affinity = 1 - max(float(boundary[b, y + cy, x + cx]) for cy, cx in path_cells((dy, dx)))
                    if one != two:
                        pairs["neg"] += 1
                        sums["aff_neg"] -= math.log(1 + 1e-5 - affinity)
                        continue
                    kind, target = ("fg", (dy, dx)) if one else ("bg", (0, 0))
                    moved = displacement[b, :, y, x] - displacement[b, :, y + dy, x + dx]
                    pairs[kind] += 1
                    sums[f"aff_{kind}"] -= math.log(affinity + 1e-5)
                    sums[f"dp_{kind}"] += sum(
                        abs(float(part) - wanted) for part, wanted in zip(moved, target, strict=True)
                    )
    found = {
        name: total / ((2 if "dp" in name else 1) * pairs[name.split("_")[1]] + 1e-5) for name, total in sums.items()
    }
    found["total"] = ((found["aff_bg"] + found["aff_fg"]) / 2 + found["aff_neg"]) / 2 + (
        found["dp_fg"] + found["dp_bg"]
    ) / 2
    return found


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Boundary logits, displacements and labels with background, two of eighty classes and ignored cells."""
    generator = torch.Generator().manual_seed(3)
    edge = torch.randn(2, 1, 8, 9, generator=generator, dtype=torch.float64)
    displacement = torch.randn(2, 2, 8, 9, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 3, 80, 255])[torch.randint(4, (2, 4, 5), generator=generator)]
    labels = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :, :9].to(torch.uint8)
    return edge, displacement, labels


def test_all_losses_are_what_they_are_defined_as(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    """Pair by pair, ignored cells in none; any class index will do."""
    found, expected = losses_of(*batch), by_hand(*batch)
    assert set(found) == {"total", *LOSS_TERMS} and min(expected.values()) > 0
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-9), name


def test_a_kind_without_pairs_costs_nothing() -> None:
    """All background: no class, no difference; nothing is NaN. All ignored: no loss at all."""
    edge, displacement = torch.zeros(1, 1, 8, 8, requires_grad=True), torch.zeros(1, 2, 8, 8)
    background = losses_of(edge, displacement, torch.zeros(1, 8, 8, dtype=torch.uint8))
    assert float(background["aff_bg"].detach()) == pytest.approx(-math.log(0.5 + 1e-5), rel=1e-4)
    assert background["aff_fg"] == background["aff_neg"] == background["dp_fg"] == background["dp_bg"] == 0
    ignored = losses_of(edge, displacement, torch.full((1, 8, 8), 255, dtype=torch.uint8))
    assert ignored["total"] == 0
    ignored["total"].backward()
    assert not edge.grad.any()


def test_the_true_boundary_and_displacements_to_a_centre_are_rewarded() -> None:
    """An object's outline as the boundary, and vectors that lead to its centre, beat everything else."""
    labels = torch.zeros(1, 16, 16, dtype=torch.uint8)
    labels[:, 4:12, 4:12] = 5
    inside = (labels > 0).double()
    outline = (torch.nn.functional.max_pool2d(inside, 3, 1, 1) - inside)[:, None]
    grid = torch.stack(torch.meshgrid(*[torch.arange(16.0)] * 2, indexing="ij"))[None].double()
    right, flat = -grid * inside[:, None], torch.zeros(1, 2, 16, 16).double()
    good = losses_of(20 * outline - 10, right, labels)
    assert float(good["aff_neg"]) < 0.01 and float(good["dp_fg"]) < 1e-6 and float(good["dp_bg"]) < 1e-6
    nowhere, everywhere = (losses_of(torch.full_like(outline, value), flat, labels) for value in (-10, 10))
    misplaced = losses_of(20 * outline.roll(3, -1) - 10, -right, labels)
    for worse in (nowhere, everywhere, misplaced):
        assert float(worse["total"]) > 2 * float(good["total"]) and float(worse["dp_fg"]) > 1


def test_processes_share_the_global_batchs_loss(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    """Counts are gathered, gradients averaged: the mean over processes is the whole batch's loss and gradient."""
    edge, displacement, labels = batch
    labels[1] = 3  # one process has other kinds of pairs than the other
    counts = [
        torch.stack([pairs.sum() for pairs in pair_labels(labels[own : own + 1], DIRECTIONS, RADIUS)]) for own in (0, 1)
    ]

    def shares(logits: Tensor) -> list[dict[str, Tensor]]:
        return [
            losses_of(logits[own : own + 1], displacement[own : own + 1], labels[own : own + 1],
                      gather=lambda rows: torch.stack(counts))
            for own in (0, 1)
        ]  # fmt: skip

    logits = edge.clone().requires_grad_()
    whole, parts = losses_of(logits, displacement, labels), shares(logits)
    for name in whole:
        torch.testing.assert_close(sum(part[name] for part in parts) / 2, whole[name])
    gradient = torch.autograd.grad(whole["total"], logits, retain_graph=True)[0]
    mean = torch.autograd.grad(sum(part["total"] for part in parts) / 2, logits)[0]
    torch.testing.assert_close(mean, gradient)


def test_the_step_trains_the_branches_alone() -> None:
    """All their weights get a gradient, none of the backbone's; float32 under any number format."""
    step = IRNStep(IRN(IRNModelConfig("resnet18", blocks=[1, 1, 1, 1])), LossConfig(radius=3)).train()
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    labels[:, :, 4:] = 7
    with torch.autocast("cpu", torch.bfloat16):
        losses = step(torch.randn(2, 3, 32, 32), labels)
    assert {value.dtype for value in losses.values()} == {torch.float32}
    losses["total"].backward()
    for name, parameter in step.model.named_parameters():
        is_trained = not name.startswith("resnet50.")
        assert (parameter.grad is not None and bool(parameter.grad.any())) == is_trained, name
