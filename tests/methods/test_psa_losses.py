"""PSA's losses by hand, and over several processes."""

import math

import pytest
import torch
from torch import Tensor

from common.masks.pairs import PairLabels, pair_directions, pair_labels
from methods.psa.affinity import pair_affinity
from methods.psa.losses import PSAStep, affinity_losses
from methods.psa.model import TinyAffinity

pytestmark = pytest.mark.usefixtures("one_thread")


def given_pairs(*kinds: str) -> PairLabels:
    """Pairs of a batch of one image with one direction, in one row: b, f, n, or - for none."""
    return PairLabels(*(torch.tensor([kind == letter for kind in kinds]).view(1, 1, 1, -1) for letter in "bfn"))


def test_losses_by_hand() -> None:
    """Each is a mean over its own pairs, however many there are of the others."""
    affinity = torch.tensor([0.5, 0.25, 0.1, 0.8, 0.9, 0.3]).view(1, 1, 1, -1)
    losses = affinity_losses(affinity, given_pairs("b", "b", "f", "n", "-", "b"))
    background = -(math.log(0.5) + math.log(0.25) + math.log(0.3)) / 3
    expected = {"bg": background, "fg": -math.log(0.1), "neg": -math.log(0.2)}
    for name, value in expected.items():
        assert float(losses[name]) == pytest.approx(value, rel=1e-3), name
    assert float(losses["total"]) == pytest.approx(background / 4 + expected["fg"] / 4 + expected["neg"] / 2, rel=1e-3)


def test_extreme_affinities_and_missing_kinds() -> None:
    """Finite, also in the gradient; a kind without pairs costs nothing."""
    affinity = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 1, 1, -1).requires_grad_()
    losses = affinity_losses(affinity, given_pairs("b", "b", "n", "n"))
    losses["total"].backward()
    assert losses["fg"] == 0 and affinity.grad.isfinite().all()
    assert float(losses["neg"].detach()) == pytest.approx(-math.log(1e-5) / 2, rel=0.01)
    assert all(value == 0 for value in affinity_losses(affinity, given_pairs(*"----")).values())


def test_the_mean_over_processes_is_the_loss_of_the_whole_batch() -> None:
    """Losses and gradients, with very different numbers of pairs in the parts."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1, 255], dtype=torch.uint8)[torch.randint(3, (4, 6, 8), generator=rng)]
    labels[:2] = 0
    features, directions = torch.randn(4, 3, 6, 8, generator=rng), pair_directions(3)

    def losses_of(part: slice, everywhere: list[Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        own = features[part].clone().requires_grad_()
        pairs = pair_labels(labels[part], directions, 3)
        gather = (lambda rows: torch.cat(everywhere)) if everywhere else (lambda rows: rows)
        losses = affinity_losses(pair_affinity(own, directions, 3), pairs, gather)
        losses["total"].backward()
        return losses, own.grad

    whole, gradient = losses_of(slice(None), [])
    halves = [slice(0, 2), slice(2, 4)]
    counts = [torch.stack([kind.sum() for kind in pair_labels(labels[half], directions, 3)])[None] for half in halves]
    parts = [losses_of(half, counts) for half in halves]
    for name, value in whole.items():
        torch.testing.assert_close((parts[0][0][name] + parts[1][0][name]) / 2, value)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]) / 2, gradient)


def test_a_step_learns() -> None:
    """Cells of two halves that differ in colour: the loss falls far below that of no knowledge."""
    torch.manual_seed(0)
    images, labels = torch.zeros(1, 3, 32, 32), torch.zeros(1, 16, 16, dtype=torch.uint8)
    images[..., 16:], labels[..., 8:] = 1, 1
    step = PSAStep(TinyAffinity(), 5)
    optimizer, totals = torch.optim.SGD(step.parameters(), lr=0.1), []
    for _ in range(30):
        losses = step(images, labels)
        totals.append(float(losses["total"].detach()))
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
    assert losses.keys() == {"bg", "fg", "neg", "total"} and totals[-1] < 0.3 * totals[0] and totals[-1] < 0.3
