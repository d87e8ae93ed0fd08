"""ToCo's network, optimiser and step: what the goldens do not reach."""

import pytest
import timm
import torch
from torch import Tensor, nn

from common.run.errors import UserError
from common.train.course import Position
from methods.toco.config import EnergyConfig, LabelConfig, LossConfig, ToCoModelConfig, ToCoOptimConfig
from methods.toco.model import ToCo
from methods.toco.optim import toco_optimizer
from methods.toco.step import LOSS_TERMS, ToCoStep

SMALL = {
    "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2, "drop_path": 0.0, "aux_layer": -2,
    "decoder_dim": 8, "proj_dim": 16,
}  # fmt: skip
HEADS = ("mlp.0", "mlp.2", "mlp.4")


def small(**changes: int) -> ToCo:
    """A tiny network of three classes, always the same."""
    torch.manual_seed(0)
    return ToCo(ToCoModelConfig(**{**SMALL, **changes}), 3)


def test_names_shapes_and_epsilons_are_the_references() -> None:
    """DeiT-S and 20 classes: timm's encoder, 173 tensors, 37,750,632 numbers; every norm's epsilon is 1e-6."""
    with torch.device("meta"):
        model = ToCo(ToCoModelConfig(arch="deit_small_patch16_224", drop_path=0.0), 20)
        encoder = timm.create_model("deit_small_patch16_224").state_dict()
    state = model.state_dict()
    of_encoder = {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
    assert {name: value.shape for name, value in of_encoder.items()} == {n: v.shape for n, v in encoder.items()}
    rest = {name: tuple(value.shape) for name, value in state.items() if not name.startswith("encoder.")}
    expected = {
        "decoder.conv6.weight": (512, 384, 3, 3), "decoder.conv7.weight": (512, 512, 3, 3),
        "decoder.conv8.weight": (21, 512, 1, 1), "classifier.weight": (20, 384, 1, 1),
        "aux_classifier.weight": (20, 384, 1, 1),
    }  # fmt: skip
    for head in ("proj_head", "proj_head_t"):
        for layer, (inputs, outputs) in zip(HEADS, ((384, 2048), (2048, 2048), (2048, 256)), strict=True):
            expected |= {f"{head}.{layer}.weight": (outputs, inputs), f"{head}.{layer}.bias": (outputs,)}
        expected |= {f"{head}.last_layer.weight_g": (1024, 1), f"{head}.last_layer.weight_v": (1024, 256)}
    assert rest == expected and len(state) == 173 and sum(value.numel() for value in state.values()) == 37_750_632
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 25 and {norm.eps for norm in norms} == {1e-6}


def test_what_is_frozen_and_how_the_teacher_follows() -> None:
    """Position embedding, ImageNet head, gains and the teacher; the teacher is a copy, then a running mean."""
    model = small()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    teacher = {name for name in frozen if name.startswith("proj_head_t.")}
    others = {"encoder.pos_embed", "encoder.head.weight", "encoder.head.bias", "proj_head.last_layer.weight_g"}
    assert frozen - teacher == others and len(teacher) == 8
    pairs = list(zip(model.proj_head.parameters(), model.proj_head_t.parameters(), strict=True))
    assert all(torch.equal(*pair) for pair in pairs)
    before = [teacher.clone() for _, teacher in pairs]
    with torch.no_grad():
        for student, _ in pairs:
            student += 1
    model.update_teacher(0.75)
    for (student, teacher), old in zip(pairs, before, strict=True):
        torch.testing.assert_close(teacher, 0.75 * old + 0.25 * student)


def test_optimizer_groups_and_schedule() -> None:
    """Everything decays; heads learn ten times faster; the poly schedule is not shifted by the warm-up."""
    model, config = small(), ToCoOptimConfig()
    optimizer = toco_optimizer(model, config)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [{names[id(parameter)] for parameter in group["params"]} for group in optimizer.param_groups]
    assert sum(map(len, groups)) == sum(parameter.requires_grad for parameter in model.parameters())
    assert all("norm" in name for name in groups[1]) and not any("norm" in name for name in groups[0])
    assert {name.split(".")[0] for name in groups[2]} == {"classifier", "aux_classifier", "proj_head"}
    assert groups[3] == {f"decoder.conv{number}.weight" for number in (6, 7, 8)}
    assert [group["lr_scale"] for group in optimizer.param_groups] == [1, 1, 10, 10]
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01}
    assert config.rate(Position(), 20_000) == pytest.approx(6e-11)
    assert config.rate(Position(total_steps=1499), 20_000) < 6e-5
    assert config.rate(Position(total_steps=1500), 20_000) == pytest.approx(6e-5 * (1 - 1500 / 20_000) ** 0.9)


@pytest.mark.parametrize("layer", [-1, 2, 3, -4])
def test_an_auxiliary_block_that_is_none(layer: int) -> None:
    """The last block is no choice either: its tokens are normed."""
    with pytest.raises(UserError, match=rf"aux_layer={layer} .* 3 blocks"):
        small(aux_layer=layer)


def test_imagenet_weights_and_their_refusal() -> None:
    """All of timm's tensors are loaded, the heads stay; another network's are refused."""
    model = small()
    donor = {name: torch.randn_like(value) for name, value in model.encoder.state_dict().items()}
    head = model.classifier.weight.clone()
    coverage = model.load_imagenet(donor)
    assert len(coverage.loaded) == len(donor) and torch.equal(model.classifier.weight, head)
    assert all(torch.equal(value, donor[name]) for name, value in model.encoder.state_dict().items())
    with pytest.raises(UserError, match="does not fit"):
        model.load_imagenet({"stem.weight": torch.zeros(1)})


def batch(size: int = 32, count: int = 4) -> tuple[Tensor, ...]:
    """What a training step gets."""
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(count, 3, size, size, generator=generator) for _ in range(3)]
    boxes, labels = torch.tensor([[0, size, 0, size]] * count), torch.eye(3)[torch.arange(count) % 3]
    picks = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    return *views, boxes, labels, picks


def losses_and_gradients(step: int, **config: object) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    """A step of the tiny network."""
    model = small()
    training = ToCoStep(model, LossConfig(**config), LabelConfig(high=0.55, low=0.35), EnergyConfig(), 16)
    *views, boxes, labels, picks = batch()
    losses = training(*views, boxes, labels, step, picks)
    losses["total"].backward()
    return losses, {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("step", "idle"), [(0, ("decoder", "proj_head")), (3, ("proj_head",)), (6, ())], ids=["both", "contrasts", "none"]
)
def test_what_does_not_count_yet_is_not_computed_and_changes_no_gradient(step: int, idle: tuple[str, ...]) -> None:
    """With and without losses that have no weight yet: equal gradients, which are zeros (not None) for idle parts."""
    phases = {"seg_after": 2, "contrast_after": 5}
    (lean, gradients), (full, expected) = (
        losses_and_gradients(step, compute_inactive=whole, **phases) for whole in (False, True)
    )
    torch.testing.assert_close(lean["total"], full["total"], rtol=1e-6, atol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7, msg=name)
        if name.startswith(idle):
            assert not gradient.any(), name
    assert gradients["encoder.blocks.2.mlp.fc1.weight"].any() and gradients["aux_classifier.weight"].any()
    assert {name for name in LOSS_TERMS if full[name] == 0} <= {"reg"}
    skipped = {"decoder": ("seg", "reg"), "proj_head": ("ptc", "ctc")}
    assert all(lean[name] == 0 for part in idle for name in skipped[part])


def test_pseudo_labels_by_phase() -> None:
    """Up to ``aux_cam_until`` the decoder's target comes from the auxiliary CAM: another loss, another gradient."""
    first, second = (losses_and_gradients(7, seg_after=0, aux_cam_until=until)[0] for until in (-1, 7))
    later = losses_and_gradients(8, seg_after=0, aux_cam_until=7)[0]
    assert first["seg"] != second["seg"] and later["seg"] == first["seg"]
