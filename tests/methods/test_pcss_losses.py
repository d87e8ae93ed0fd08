"""Laws of PCSS's training step. (Its numbers are compared with the reference's in tests/golden.)"""

import collections
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.nets.attention import MapRequest
from common.nets.mctformer import Output
from common.nets.options import ViTConfig
from common.run.errors import UserError
from common.seeds.cam import max_norm
from methods.pcss.config import FIMConfig, LossConfig
from methods.pcss.importance import FrequencyImportance
from methods.pcss.losses import LOSS_TERMS, PCSSStep, derangement
from methods.pcss.model import PCSS

CONFIG = LossConfig(mpc_idx=1)
CLASSES, SIZE = 3, 32
LABELS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
PARTNERS = torch.tensor([2, 3, 1, 0])
UNLABELLED = LABELS * torch.tensor([[1.0], [1.0], [0.0], [1.0]])
EPOCH = 4  # suppression is on
pytestmark = pytest.mark.usefixtures("one_thread")


def network(drop_path: float = 0.0) -> PCSS:
    """A seeded network in training, its heads strong enough for maps that differ."""
    torch.manual_seed(0)
    config = ViTConfig(img_size=SIZE, patch_size=8, embed_dim=32, depth=4, num_heads=2, drop_path=drop_path)
    model = PCSS(config, CLASSES)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model.train()


@pytest.fixture
def model() -> PCSS:
    """Without stochastic depth."""
    return network()


@pytest.fixture
def images() -> Tensor:
    """Four random images."""
    return torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def importance() -> FrequencyImportance:
    """After a round of random losses, in use from epoch 4."""
    state = FrequencyImportance(CLASSES, SIZE, FIMConfig(block=8, start_epoch=EPOCH - 1))
    state.begin_round(EPOCH - 1)
    state.add(torch.rand(CLASSES, 4, 4, generator=torch.Generator().manual_seed(2)), 1)
    state.finish_round()
    return state


def step(
    model: PCSS, config: LossConfig, images: Tensor, labels: Tensor = LABELS, epoch: int = EPOCH, term: str = "total"
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses of one step and a term's gradients."""
    model.zero_grad(set_to_none=True)
    losses = PCSSStep(model, config, importance())(images, labels, epoch, PARTNERS)
    losses[term].backward()
    return losses, {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def assert_equal_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """To float tolerance."""
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=5e-6, msg=name)


def recorded(model: PCSS, run: Callable[[], dict]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """A step's losses, and the patch CAMs of its passes."""
    read_heads, cams = model.read_heads, []

    def record(tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        outputs = read_heads(tokens, grid)
        cams.append(outputs[2].detach())
        return outputs

    model.read_heads = record
    try:
        return run(), cams
    finally:
        del model.read_heads


def weighted(losses: dict[str, Tensor], weights: Sequence[float]) -> Tensor:
    """The total as the paper has it: classification terms as they are, each CAM term times its weight."""
    classification = sum(losses[name] for name in LOSS_TERMS if name.startswith("cls"))
    return classification + weights[0] * losses["cam_suppressed"] + weights[1] * losses["cam_mixed"]


def test_every_term_counts(model: PCSS, images: Tensor) -> None:
    """All are positive, and the total is their sum; everything but the unused norm is trained."""
    losses, gradients = step(model, CONFIG, images)
    assert all(losses[name] > 1e-4 for name in LOSS_TERMS)
    torch.testing.assert_close(losses["total"], weighted(losses, CONFIG.weights))
    assert losses["logits_cls"].shape == losses["logits_pcls"].shape == (4, CLASSES)
    assert not losses["logits_cls"].requires_grad and not losses["logits_pcls"].requires_grad
    assert set(dict(model.named_parameters())) - set(gradients) == {"norm.weight", "norm.bias"}


def test_logits_and_classification_are_those_of_the_plain_pass(model: PCSS, images: Tensor) -> None:
    """Binary cross-entropies of both logits, added."""
    losses, _ = step(model, CONFIG, images)
    out = model(images)
    torch.testing.assert_close(losses["logits_cls"], out.cls)
    torch.testing.assert_close(losses["logits_pcls"], out.pcls)
    expected = sum(F.binary_cross_entropy_with_logits(logits, LABELS) for logits in (out.cls, out.pcls))
    torch.testing.assert_close(losses["cls"], expected)


@pytest.mark.parametrize(("weights", "passes"), [([0, 0], 1), ([0, 2], 2), ([2, 0], 2), ([2, 2], 3)])
def test_a_weight_of_zero_switches_a_pass_off(model: PCSS, images: Tensor, weights: list, passes: int) -> None:
    """Both of its terms are 0 and it is not computed; the others stay as they are."""
    reference, _ = step(model, CONFIG, images)
    losses, cams = recorded(model, lambda: step(model, replace(CONFIG, weights=weights), images)[0])
    assert len(cams) == passes
    on = {"cls": True, "suppressed": weights[0] > 0, "mixed": weights[1] > 0}
    for name in LOSS_TERMS:
        expected = reference[name] if on[name.rpartition("_")[2]] else torch.tensor(0.0)
        torch.testing.assert_close(losses[name], expected)
    torch.testing.assert_close(losses["total"], weighted(losses, weights))


def test_weights_scale_the_cam_terms_only(model: PCSS, images: Tensor) -> None:
    """Each its own, in the total; the terms are given before their weights."""
    for weights in ([1, 1], [3, 5]):
        losses, _ = step(model, replace(CONFIG, weights=weights), images)
        torch.testing.assert_close(losses["total"], weighted(losses, weights))
        for name in LOSS_TERMS:
            torch.testing.assert_close(losses[name], step(model, CONFIG, images)[0][name])


def test_passes_begin_at_their_epochs(model: PCSS, images: Tensor) -> None:
    """Suppression after the first round's epoch; the mixed CAM at its own, mixed classification always."""
    config = replace(CONFIG, mpc_cam_start_epoch=2)
    for epoch in range(6):
        losses, _ = step(model, config, images, epoch=epoch)
        is_on = {"cls_suppressed": epoch >= EPOCH, "cam_suppressed": epoch >= EPOCH, "cam_mixed": epoch >= 2}
        assert all(bool(losses[name] > 0) == is_on.get(name, True) for name in LOSS_TERMS), epoch


@pytest.mark.parametrize(("epoch", "cam_start"), [(EPOCH, 0), (0, 0), (EPOCH, 9)])
def test_shared_prefix_is_exact_without_stochastic_depth(
    model: PCSS, images: Tensor, epoch: int, cam_start: int
) -> None:
    """Values and gradients, whichever passes are on."""
    config = replace(CONFIG, mpc_cam_start_epoch=cam_start)
    exact, fast = (step(model, replace(config, share_prefix=share), images, epoch=epoch) for share in (False, True))
    for name in ("total", *LOSS_TERMS):
        torch.testing.assert_close(fast[0][name], exact[0][name], rtol=1e-5, atol=1e-7, msg=name)
    assert_equal_gradients(fast[1], exact[1])


def test_the_mixed_pass_draws_its_own_stochastic_depth(images: Tensor) -> None:
    """In the blocks before the mix, unless they are shared. (With ratio 1 nothing else tells it from the plain one.)"""
    config = replace(CONFIG, weights=[0, 2], mpc_org_ratio=1.0)
    for drop_path, share, is_same in ((0.0, False, True), (0.9, True, True), (0.9, False, False)):
        model = network(drop_path)
        for block in model.blocks[2:]:
            block.drop_path = torch.nn.Identity()
        losses, _ = step(model, replace(config, share_prefix=share), images)
        assert torch.allclose(losses["cls"], losses["cls_mixed"], atol=1e-4) == is_same


def literal_mixed(model: PCSS, images: Tensor, detached: set[str]) -> dict[str, Tensor]:
    """The mixed pass in complex transforms; what of magnitudes and the plain pass's map is constant is told."""

    def constant(name: str, value: Tensor) -> Tensor:
        return value.detach() if name in detached else value

    def early() -> tuple[Tensor, tuple[int, int], Tensor]:
        tokens, grid = model.embed(images)
        tokens, attention = model.run_blocks(tokens, grid, range(2), MapRequest())
        return tokens, grid, attention

    plain, first = model(images), early()
    magnitude = torch.fft.fft2(model.patch_map(*first[:2])).abs()
    tokens, grid, attention = early()
    phase = torch.fft.fft2(model.patch_map(tokens, grid)).angle()
    mixed = 0.3 * constant("own", magnitude) + 0.7 * constant("partner", magnitude)[PARTNERS]
    patches = torch.fft.ifft2(mixed * torch.exp(1j * phase)).real.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens[:, :CLASSES], patches], dim=1)
    out: Output = model.output(*_rest(model, tokens, grid, attention))
    target = constant("target", max_norm(plain.rcams))
    return {
        "cls_mixed": sum(F.binary_cross_entropy_with_logits(logits, LABELS) for logits in (out.cls, out.pcls)),
        "cam_mixed": (target - max_norm(out.rcams)).abs().mean(),
    }


def _rest(model: PCSS, tokens: Tensor, grid: tuple[int, int], attention: Tensor) -> tuple:
    tokens, attention = model.run_blocks(tokens, grid, range(2, model.depth), MapRequest(), attention)
    return tokens, grid, attention


@pytest.mark.parametrize("term", ["cls_mixed", "cam_mixed"])
@pytest.mark.parametrize("share_prefix", [False, True])
def test_what_is_constant_in_the_mixed_pass(model: PCSS, images: Tensor, term: str, share_prefix: bool) -> None:
    """The partner's magnitude and the plain pass's map; not the own magnitude. Other readings differ clearly."""
    losses, found = step(model, replace(CONFIG, share_prefix=share_prefix), images, term=term)
    right = {"partner", "target"}
    wrong = [{"target"}, {"partner", "target", "own"}, *([{"partner"}] if term == "cam_mixed" else [])]
    for detached in (right, *wrong):
        model.zero_grad(set_to_none=True)
        expected = literal_mixed(model, images, detached)[term]
        torch.testing.assert_close(losses[term], expected, rtol=1e-4, atol=1e-6)
        expected.backward()
        gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        if detached == right:
            assert_equal_gradients(found, gradients)
        else:
            name = "blocks.0.mlp.fc1.weight"
            assert (found[name] - gradients[name]).norm() > 0.05 * gradients[name].norm(), detached


def test_suppressed_images_are_the_mean_over_labels(model: PCSS, images: Tensor) -> None:
    """Of images filtered by 1 - hif of each label (spec 3.1); without labels bitwise the image."""
    state = importance()
    found = PCSSStep(model, CONFIG, state).suppress(images, UNLABELLED)
    shifted = torch.fft.fftshift(torch.fft.fft2(images), dim=(-2, -1))
    for row, labels in enumerate(UNLABELLED):
        kept = [1 - state.current[k] for k in labels.nonzero().flatten()]
        filtered = [torch.fft.ifft2(torch.fft.ifftshift(mask * shifted[row], dim=(-2, -1))).real for mask in kept]
        expected = torch.stack(filtered).mean(0) if kept else images[row]
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[2], images[2]) and not torch.allclose(found[0], images[0], atol=0.1)


def test_images_without_labels_do_not_compare_their_suppressed_cams(images: Tensor) -> None:
    """Stochastic depth alone makes them differ; the mean is still over all images."""
    model = network(drop_path=0.6)
    losses, cams = recorded(model, lambda: step(model, CONFIG, images, UNLABELLED)[0])
    difference = (max_norm(cams[0]) - max_norm(cams[1])).abs()
    assert difference[2].mean() > 1e-3
    counted = difference[[0, 1, 3]].sum() / difference.numel()
    torch.testing.assert_close(losses["cam_suppressed"], counted)
    losses, gradients = step(model, CONFIG, images, torch.zeros(4, CLASSES))
    assert losses["cam_suppressed"] == 0 and losses["cls_suppressed"] > 0
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_both_sides_of_the_suppressed_term_are_trained(model: PCSS, images: Tensor) -> None:
    """Neither is constant: the gradient is that of both passes."""
    _, found = step(model, CONFIG, images, term="cam_suppressed")
    suppressed = PCSSStep(model, CONFIG, importance()).suppress(images, LABELS)
    model.zero_grad(set_to_none=True)
    (max_norm(model(images).cams) - max_norm(model(suppressed).cams)).abs().mean().backward()
    assert_equal_gradients(found, {n: value.grad for n, value in model.named_parameters() if value.grad is not None})


@pytest.mark.parametrize("partners", [[2, 3, 0, 1], [3, 0, 1, 2], [1, 2, 3, 0]])
def test_partners_may_be_in_another_process(model: PCSS, images: Tensor, partners: list[int]) -> None:
    """Two processes with half a batch each give the losses and gradients of one with the whole, on average."""
    config, magnitudes, results = replace(CONFIG, weights=[0, 2]), [], []

    def keep(rows: Tensor) -> Tensor:
        assert not rows.requires_grad
        magnitudes.append(rows)
        return torch.cat([rows, rows])

    def run(gather: Callable, rank: int, part: slice) -> dict[str, Tensor]:
        distributed = PCSSStep(model, config, importance(), gather, rank)
        return distributed(images[part], LABELS[part], 0, torch.tensor(partners))

    parts = [slice(0, 2), slice(2, 4)]
    for rank, part in enumerate(parts):  # first what each would send
        run(keep, rank, part)
    model.zero_grad(set_to_none=True)
    for rank, part in enumerate(parts):
        results.append(run(lambda rows: torch.cat(magnitudes), rank, part))
        (results[-1]["total"] / 2).backward()
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad(set_to_none=True)
    whole = PCSSStep(model, config, importance())(images, LABELS, 0, torch.tensor(partners))
    whole["total"].backward()
    for name in ("total", *LOSS_TERMS):
        torch.testing.assert_close(sum(result[name] for result in results) / 2, whole[name], rtol=1e-5, atol=1e-6)
    assert_equal_gradients(found, {n: value.grad for n, value in model.named_parameters() if value.grad is not None})


@pytest.mark.parametrize("index", [-1, 3, 7])
def test_magnitudes_are_mixed_between_two_blocks(model: PCSS, index: int) -> None:
    """A block that is not there, or the last one, is refused; the first and the last but one will do."""
    with pytest.raises(UserError, match=f"loss.mpc_idx={index} does not fit a network of 4 blocks: 0 to 2"):
        PCSSStep(model, replace(CONFIG, mpc_idx=index), importance())
    for fitting in (0, 2):
        PCSSStep(model, replace(CONFIG, mpc_idx=fitting), importance())


def test_partners_without_fixed_points() -> None:
    """Every derangement of four images is drawn about equally often, no other permutation; one image keeps itself."""
    draws = torch.Generator().manual_seed(0)
    drawn = collections.Counter(tuple(derangement(4, draws).tolist()) for _ in range(900))
    assert len(drawn) == 9 and min(drawn.values()) > 60
    assert all(place != partner for found in drawn for place, partner in enumerate(found))
    assert derangement(1, draws).tolist() == [0]
