"""Laws of DiG's training step. (Its numbers are compared with the reference's in tests/golden.)"""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.nets.attention import MapRequest
from common.nets.layers import Attention
from common.nets.options import ViTConfig
from methods.dig.config import LossConfig
from methods.dig.lfca import LFCA, FeatureShape
from methods.dig.losses import LOSS_TERMS, DiGStep, distillation, log_probabilities
from methods.dig.model import DiG

CLASSES, SIZE, FEATURES = 3, 32, FeatureShape(2, 16)
CONFIG = LossConfig(cam_start_epoch=1)
LATE = 1
LABELS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
Step = tuple[dict[str, Tensor], dict[str, Tensor]]
pytestmark = pytest.mark.usefixtures("one_thread")


def network(features: FeatureShape | None = FEATURES) -> DiG:
    """A seeded network without stochastic depth, its heads strong enough for maps that differ."""
    torch.manual_seed(0)
    config = ViTConfig(img_size=SIZE, patch_size=8, embed_dim=32, depth=3, num_heads=2, drop_path=0.0)
    model = DiG(config, CLASSES, features)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    for module in model.modules():
        if isinstance(module, LFCA):
            module.drop_path.drop_prob = 0.0
    return model.train()


@pytest.fixture
def model() -> DiG:
    """A seeded network."""
    return network()


def inputs() -> dict[str, Tensor]:
    """Two images, their features, and as many denoised images."""
    generator = torch.Generator().manual_seed(1)
    images, denoised = (torch.randn(2, 3, SIZE, SIZE, generator=generator) for _ in range(2))
    return {"images": images, "features": torch.randn(2, 32, 4, 4, generator=generator), "denoised": denoised}


def step(
    model: DiG, config: LossConfig = CONFIG, epoch: int = LATE, labels: Tensor = LABELS, **changed: Tensor
) -> Step:
    """Losses and gradients of one step, with what the configuration says that it reads."""
    model.zero_grad(set_to_none=True)
    given = {**inputs(), **changed}
    features = given["features"] if config.uses_features(epoch) else None
    denoised = given["denoised"] if config.uses_denoised(epoch) else None
    losses = DiGStep(model, config)(given["images"], labels, epoch, features, denoised)
    losses["total"].backward()
    return losses, {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def only(*terms: str) -> LossConfig:
    """Some terms with their weights, the others off."""
    weights = [weight if name in terms else 0.0 for name, weight in zip(LOSS_TERMS, CONFIG.weights, strict=True)]
    return replace(CONFIG, weights=weights)


def reached(gradients: dict[str, Tensor]) -> set[str]:
    """Parameters with a gradient other than 0."""
    return {name for name, gradient in gradients.items() if gradient.abs().max() > 0}


def is_of_lfca(name: str) -> bool:
    """Whether a parameter is of the part that only training needs."""
    return name.startswith(("LFCA", "diff_head_p"))


def weighted(losses: dict[str, Tensor], weights: Sequence[float]) -> Tensor:
    """The sum of the terms times their weights."""
    return sum(weight * losses[name] for name, weight in zip(LOSS_TERMS, weights, strict=True))


def test_every_term_counts(model: DiG) -> None:
    """All are positive, the total is their sum, and every parameter but the unused norm gets a gradient."""
    losses, gradients = step(model)
    assert all(losses[name] > 1e-5 for name in LOSS_TERMS)
    torch.testing.assert_close(losses["total"], weighted(losses, CONFIG.weights))
    assert losses["logits_cls"].shape == losses["logits_pcls"].shape == (2, CLASSES)
    assert set(dict(model.named_parameters())) - set(gradients) == {"norm.weight", "norm.bias"}


@pytest.mark.parametrize("term", LOSS_TERMS)
def test_a_weight_of_zero_switches_a_term_off(model: DiG, term: str) -> None:
    """The others stay as they are."""
    reference, _ = step(model)
    losses, _ = step(model, only(*set(LOSS_TERMS) - {term}))
    assert losses[term] == 0
    for name in set(LOSS_TERMS) - {term}:
        torch.testing.assert_close(losses[name], reference[name])


def test_weights_scale_terms(model: DiG) -> None:
    """In the total; the terms are given before their weights."""
    once, _ = step(model)
    for index, name in enumerate(LOSS_TERMS):
        weights = [weight * (3 if index == place else 1) for place, weight in enumerate(CONFIG.weights)]
        other, _ = step(model, replace(CONFIG, weights=weights))
        torch.testing.assert_close(other[name], once[name])
        torch.testing.assert_close(other["total"], weighted(once, weights))


def test_cam_losses_begin_with_their_epoch(model: DiG) -> None:
    """Before, they are 0, and the others as later."""
    config = replace(CONFIG, cam_start_epoch=2)
    early, at_start = step(model, config, 1)[0], step(model, config, 2)[0]
    for name in LOSS_TERMS:
        if name in ("cam", "rcam"):
            assert early[name] == 0 < at_start[name]
        else:
            torch.testing.assert_close(early[name], at_start[name])


def test_what_is_read_of_the_diffusion_model() -> None:
    """Features for LFCA's losses, denoised images for theirs; with W = 1 0 0 0 0 nothing, in any epoch."""
    table = {
        ("cls",): (False, False, False, False), ("cls", "pred_diff"): (True, True, False, False),
        ("cls", "cam"): (False, True, False, False), ("cls", "cls_denoised"): (False, False, True, True),
        ("cls", "rcam"): (False, False, False, True), LOSS_TERMS: (True, True, True, True),
    }  # fmt: skip
    for terms, expected in table.items():
        config = only(*terms)
        features, denoised = (
            [uses(epoch) for epoch in (0, 1)] for uses in (config.uses_features, config.uses_denoised)
        )
        assert (*features, *denoised) == expected
        assert config.uses_diffusion() == any(expected) and config.has_lfca() == any(expected[:2])


def test_without_diffusion_no_lfca_is_needed() -> None:
    """The network for W = 1 0 0 0 0 learns what the whole one does without the other losses."""
    losses, gradients = step(network(None), only("cls"))
    assert losses["total"] == losses["cls"] > 0
    light = network(None)
    whole = network()
    whole.load_state_dict({**whole.state_dict(), **light.state_dict()})
    _, expected = step(whole, only("cls"))
    assert not any(map(is_of_lfca, expected)) and gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name])


def test_lfca_losses_do_not_reach_the_classifier(model: DiG) -> None:
    """Teacher and queries are constant; all of LFCA is trained."""
    names = reached(step(model, only("pred_diff"))[1])
    assert names == {name for name, _ in model.named_parameters() if is_of_lfca(name)}


def test_the_cam_loss_does_not_reach_lfca(model: DiG) -> None:
    """The diffusion CAM is constant: the term trains what makes the CAM, up to the head."""
    assert "head.weight" in reached(step(model, only("cam"))[1])
    without, both = step(model, only("pred_diff"))[1], step(model, only("pred_diff", "cam"))[1]
    for name in filter(is_of_lfca, without):
        torch.testing.assert_close(without[name], both[name])


def test_lfca_is_frozen_where_nothing_trains_it(model: DiG) -> None:
    """Parameters without gradient would hold up several processes, and the optimiser would decay them."""
    DiGStep(model, only("cls", "cam", "rcam"))
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if is_of_lfca(name))
    DiGStep(model, CONFIG)
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if is_of_lfca(name))


def test_the_refined_cam_loss_only_pulls_the_denoised_pass(model: DiG) -> None:
    """Its gradient is that of the denoised pass towards a constant; absent classes do not count."""
    losses, gradients = step(model, only("rcam"))
    given = inputs()
    with torch.no_grad():
        target = model(given["images"]).rcams
    for parameter in model.parameters():
        parameter.grad = None
    normal = [maps - maps.amin((-2, -1), keepdim=True) - 1e-5 for maps in (target, model(given["denoised"]).rcams)]
    normal = [maps.relu() / (maps.amax((-2, -1), keepdim=True) + 2e-5) for maps in normal]
    expected = ((normal[0] - normal[1]) * LABELS[..., None, None]).abs().mean()
    (10 * expected).backward()
    torch.testing.assert_close(losses["rcam"], expected, rtol=1e-4, atol=1e-6)
    for name in ("head.weight", "blocks.0.attn.qkv.weight"):
        torch.testing.assert_close(gradients[name], model.get_parameter(name).grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("epoch", [0, LATE])
def test_merged_passes_are_exact_without_stochastic_depth(model: DiG, epoch: int) -> None:
    """Values and gradients."""
    separate, merged = (step(model, replace(CONFIG, merge_passes=merge), epoch) for merge in (False, True))
    for name in ("total", *LOSS_TERMS):
        torch.testing.assert_close(separate[0][name], merged[0][name], rtol=1e-5, atol=1e-7)
    assert separate[1].keys() == merged[1].keys()
    for name, gradient in separate[1].items():
        torch.testing.assert_close(gradient, merged[1][name], rtol=1e-3, atol=5e-5, msg=name)  # of 0.1 to 1


def test_maps_are_only_made_for_the_refined_cam_loss(model: DiG, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradient in the plain pass; by the fused kernel alone in all other epochs."""
    requests, forward = [], Attention.forward

    def noted(self: Attention, x: Tensor, request: MapRequest | None = None) -> tuple:
        requests.append(request)
        return forward(self, x, request)

    monkeypatch.setattr(Attention, "forward", noted)
    step(model, CONFIG, 0)
    step(model, only("cls", "pred_diff", "cam", "cls_denoised"))
    assert requests == 4 * model.depth * [None]
    requests.clear()
    step(model)
    assert requests == model.depth * [MapRequest(detach=True)] + model.depth * [MapRequest()]


def test_images_without_labels(model: DiG) -> None:
    """All losses are finite and the CAM losses 0."""
    losses, gradients = step(model, labels=torch.zeros(2, CLASSES))
    assert all(losses[name].isfinite() for name in ("total", *LOSS_TERMS)) and losses["cam"] == losses["rcam"] == 0
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def plain_divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """As the reference writes it."""
    p, r = ((logits / temperature).softmax(1) for logits in (teacher, student))
    p, r = torch.cat([p, 1 - p], 1), torch.cat([r, 1 - r], 1)
    return (p * (p.log() - r.log())).sum() / len(p)


@pytest.mark.parametrize(("classes", "spread"), [(2, 4.0), (20, 4.0), (80, 0.02), (80, 8.0)])
def test_the_divergence_is_the_plain_one(classes: int, spread: float) -> None:
    """Value and gradient, compared in float64; also where the two hardly differ, and no gradient for the teacher."""
    generator = torch.Generator().manual_seed(2)
    teacher, student = (spread * torch.randn(3, classes, generator=generator) for _ in range(2))
    ours, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    value, expected = (
        distillation(teacher.requires_grad_(), ours, 5.0),
        plain_divergence(teacher.detach().double(), exact, 5.0),
    )
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=2e-7)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad.double(), exact.grad, rtol=1e-4, atol=2e-7)
    assert teacher.grad is None


@pytest.mark.parametrize("gap", [85.0, 500.0, 5000.0])
@pytest.mark.parametrize("sure", ["teacher", "student", "both", "opposite"])
def test_the_divergence_is_finite_for_saturated_logits(gap: float, sure: str) -> None:
    """Where the plain form gives NaN; agreement costs nothing, and a student that is wrong is pulled back."""
    high, flat = torch.tensor([[gap, 0.0, -1.0]]), torch.tensor([[0.3, 0.1, 0.0]])
    teacher = flat if sure == "student" else high
    student = {"teacher": flat, "opposite": high.flip(1)}.get(sure, high).clone().requires_grad_()
    value = distillation(teacher, student, 1.0)
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()
    if sure == "both":
        assert value.abs() < 1e-6 and student.grad.abs().max() < 1e-6
    else:
        assert value > 0.1 and student.grad.abs().max() > 0.1
    assert not plain_divergence(high, high, 1.0).isfinite()


def test_log_probabilities_of_a_single_class() -> None:
    """A softmax over one class is 1 whatever the logit: no divergence."""
    student = torch.tensor([[3.0]], requires_grad=True)
    value = distillation(torch.tensor([[-2.0]]), student, 5.0)
    value.backward()
    assert value == 0 and student.grad == 0


def test_log_probabilities_are_complementary() -> None:
    """p and 1 - p add up to 1."""
    scores = torch.randn(4, 6, generator=torch.Generator().manual_seed(3)) * 5
    p, rest = log_probabilities(scores).exp().chunk(2, dim=1)
    torch.testing.assert_close(p + rest, torch.ones_like(p))
    torch.testing.assert_close(p, F.softmax(scores, 1))
