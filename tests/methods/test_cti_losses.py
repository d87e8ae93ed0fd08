"""Laws of CTI's training step. (Its numbers are compared with the reference's in tests/golden.)"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from common.nets.options import ViTConfig
from common.seeds.cam import max_norm
from methods.cti.config import LossConfig
from methods.cti.losses import LOSS_TERMS, CTIStep
from methods.cti.memory import TokenMemory
from methods.cti.model import CTI

CONFIG = LossConfig(swap_idx=1, n_layers=2, memory_size=2)
CLASSES = 3
LABELS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
AUXILIARY = ("bg", "intra", "cross")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model() -> CTI:
    """A seeded network without stochastic depth, its heads strong enough for maps that differ."""
    torch.manual_seed(0)
    model = CTI(ViTConfig(img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=2, drop_path=0.0), CLASSES)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model.train()


@pytest.fixture
def views() -> tuple[Tensor, Tensor]:
    """Two views of two images."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 32, 32, generator=generator), torch.randn(2, 3, 32, 32, generator=generator)


def full_memory() -> TokenMemory:
    """Two random tokens of each class."""
    memory = TokenMemory(CLASSES, 2, 32)
    memory.push(torch.randn(2, CLASSES, 32, generator=torch.Generator().manual_seed(2)), torch.ones(2, CLASSES))
    return memory


def step(
    model: CTI, config: LossConfig, views: tuple[Tensor, Tensor], memory: TokenMemory, labels: Tensor = LABELS,
    epoch: int = 0,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # fmt: skip
    """Losses and gradients of one step; the memory is changed."""
    model.zero_grad(set_to_none=True)
    losses = CTIStep(model, config, memory)(*views, labels, epoch)
    losses["total"].backward()
    return losses, {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def weighted(losses: dict[str, Tensor], weights: Sequence[float]) -> Tensor:
    """The total as the paper has it: the four classification terms, and each auxiliary term times its weight."""
    classification = sum(losses[name] for name in LOSS_TERMS if name not in AUXILIARY)
    return classification + sum(weight * losses[name] for name, weight in zip(AUXILIARY, weights, strict=True))


def assert_equal_steps(first: tuple[dict, dict], second: tuple[dict, dict], terms: tuple = LOSS_TERMS) -> None:
    """The same losses and gradients, to float tolerance."""
    for name in ("total", *terms):
        torch.testing.assert_close(first[0][name], second[0][name], rtol=1e-5, atol=1e-7, msg=name)
    assert first[1].keys() == second[1].keys()
    for name, gradient in first[1].items():
        torch.testing.assert_close(gradient, second[1][name], rtol=1e-3, atol=2e-6, msg=name)


def test_every_term_counts(model: CTI, views: tuple[Tensor, Tensor]) -> None:
    """With a full memory all are positive, and the total is their sum."""
    losses, gradients = step(model, CONFIG, views, full_memory())
    assert all(losses[name] > 1e-5 for name in LOSS_TERMS)
    torch.testing.assert_close(losses["total"], weighted(losses, CONFIG.weights))
    assert losses["logits_cls"].shape == losses["logits_pcls"].shape == (2, CLASSES)
    assert set(dict(model.named_parameters())) - set(gradients) == {"pos_embed", "norm.weight", "norm.bias"}


def test_shared_prefix_is_exact_without_stochastic_depth(model: CTI, views: tuple[Tensor, Tensor]) -> None:
    """Values and gradients."""
    exact, fast = (step(model, replace(CONFIG, share_prefix=share), views, full_memory()) for share in (False, True))
    assert_equal_steps(exact, fast)


def test_skipping_the_idle_cross_pass_leaves_the_total(model: CTI, views: tuple[Tensor, Tensor]) -> None:
    """Its value is then not reported; once the memory is full it is computed in either case."""
    results, memories = [], []
    for skip in (True, False):
        memory = TokenMemory(CLASSES, 2, 32)
        results.append(step(model, replace(CONFIG, skip_idle_cross=skip), views, memory))
        memories.append(memory)
    assert_equal_steps(*results, terms=LOSS_TERMS[:-1])
    assert results[0][0]["cross"] == 0 < results[1][0]["cross"]
    assert torch.equal(memories[0].counts, memories[1].counts) and memories[0].counts.tolist() == [1, 1, 1]
    skipping, computing = (
        step(model, replace(CONFIG, skip_idle_cross=skip), views, full_memory()) for skip in (True, False)
    )
    assert_equal_steps(skipping, computing)


def test_cross_infusion(model: CTI, views: tuple[Tensor, Tensor]) -> None:
    """Present classes get the memory's mean after this step's pushes, absent ones their own token, background none."""
    memory = full_memory()
    losses, _ = step(model, CONFIG, views, memory)
    with torch.no_grad():
        plain = model(views[0], None, 1, 2)
        own = plain.trace.after[1][:, 1 : CLASSES + 1]
        infusion = torch.where(LABELS[..., None] > 0, memory.means(), own)
        swapped = model(views[0], infusion, 1, 2)
        expected = (max_norm(plain.cams)[:, 1:] - max_norm(swapped.fcams_as)[:, 1:]).abs().mean()
    torch.testing.assert_close(losses["cross"], expected, rtol=1e-4, atol=1e-6)


def test_images_without_labels(model: CTI, views: tuple[Tensor, Tensor]) -> None:
    """All losses are finite, nothing is pushed, and their own tokens change no map."""
    memory = full_memory()
    before = memory.state_dict()
    losses, gradients = step(model, CONFIG, views, memory, labels=torch.zeros(2, CLASSES))
    assert torch.equal(memory.counts, before["counts"]) and torch.equal(memory.state_dict()["rows"], before["rows"])
    with torch.no_grad():
        plain = model(views[0], None, 1, 2)
        expected = (max_norm(plain.cams)[:, 1:] - max_norm(plain.fcams_as)[:, 1:]).abs().mean()
    torch.testing.assert_close(losses["cross"], expected, rtol=1e-4, atol=1e-6)
    assert all(losses[name].isfinite() for name in ("total", *LOSS_TERMS))
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("term", AUXILIARY)
def test_a_weight_of_zero_switches_a_term_off(model: CTI, views: tuple[Tensor, Tensor], term: str) -> None:
    """The others stay as they are; without the cross loss nothing is pushed."""
    reference, _ = step(model, CONFIG, views, full_memory())
    weights = [0.0 if name == term else weight for name, weight in zip(AUXILIARY, CONFIG.weights, strict=True)]
    memory = full_memory()
    losses, _ = step(model, replace(CONFIG, weights=weights), views, memory)
    assert losses[term] == 0 and memory.counts.sum() == (6 if term == "cross" else 6 + LABELS.sum())
    for name in set(LOSS_TERMS) - {term}:
        torch.testing.assert_close(losses[name], reference[name])


def test_auxiliary_losses_begin_after_their_epoch(model: CTI, views: tuple[Tensor, Tensor]) -> None:
    """Before, they are 0 and the memory is untouched."""
    config = replace(CONFIG, aux_after_epoch=1)
    for epoch, is_on in ((0, False), (1, False), (2, True)):
        memory = full_memory()
        losses, _ = step(model, config, views, memory, epoch=epoch)
        assert all((losses[name] > 0) == is_on for name in AUXILIARY)
        assert (memory.counts.sum() > 6) == is_on


def test_detaching_changes_gradients_only(model: CTI, views: tuple[Tensor, Tensor]) -> None:
    """COCO's background loss treats the foreground's CAMs as constant."""
    attached, detached = (
        step(model, replace(CONFIG, detach_bg_cams=detach), views, full_memory()) for detach in (False, True)
    )
    for name in ("total", *LOSS_TERMS):
        assert torch.equal(attached[0][name], detached[0][name])
    difference = (attached[1]["head.weight"] - detached[1]["head.weight"]).abs().max()
    assert difference > 1e-6


def test_weights_scale_terms(model: CTI, views: tuple[Tensor, Tensor]) -> None:
    """In the total; the terms are given before their weights."""
    once, _ = step(model, CONFIG, views, full_memory())
    for index, name in enumerate(AUXILIARY):
        weights = [weight * (3 if index == place else 1) for place, weight in enumerate(CONFIG.weights)]
        other, _ = step(model, replace(CONFIG, weights=weights), views, full_memory())
        torch.testing.assert_close(other[name], once[name])
        torch.testing.assert_close(other["total"], weighted(once, weights))


def test_gathered_tokens_are_pushed(model: CTI, views: tuple[Tensor, Tensor]) -> None:
    """What other processes contribute goes into the memory in their order."""
    memory, gathered = TokenMemory(CLASSES, 2, 32), []

    def gather(rows: Tensor) -> Tensor:
        gathered.append(copy.deepcopy(rows))
        return torch.cat([rows, rows])

    CTIStep(model, CONFIG, memory, gather)(*views, LABELS, 0)
    assert memory.counts.tolist() == [2, 2, 2]
    tokens = gathered[0]
    assert tokens.shape == (2, CLASSES, 32) and tokens.mean(-1).abs().max() < 1e-5  # layer-normed
    torch.testing.assert_close(memory.means(), torch.stack([tokens[0, 0], tokens[1, 1], tokens[0, 2]]))
