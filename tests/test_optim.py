"""Weight-decay groups and learning rates, against the values that the papers' code gives."""

import pytest
import torch

from common.nets.options import ViTConfig
from common.train.course import Position
from common.train.optim import adamw, has_weight_decay, layered, set_lr
from common.train.schedule import OptimConfig, cosine_lr, learning_rate, scaled_lr
from methods.cti.model import CTI

CONFIG = OptimConfig()
PEAK = 6.25e-5  # of the global batch 64


def test_peak_follows_the_global_batch() -> None:
    """5e-4 is for 512 images."""
    assert scaled_lr(CONFIG, 64) == pytest.approx(PEAK) and scaled_lr(CONFIG, 512) == CONFIG.lr


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, 1e-6), (1, 1.33e-5), (4, 5.02e-5), (5, 6.1606e-5), (10, 5.8983e-5), (30, 3.625e-5), (59, 1.0036e-5),
     (60, 1e-5)],
)  # fmt: skip
def test_rates_by_epoch(epoch: int, expected: float) -> None:
    """The published schedule: warm-up, then a cosine that is not shifted by it."""
    assert cosine_lr(epoch, 60, PEAK, CONFIG) == pytest.approx(expected, rel=1e-4)


def test_rates_by_step() -> None:
    """By epoch the rate is constant inside one; by step it goes on in fractions and meets the other at epoch starts."""
    by_step = OptimConfig(schedule="step")
    for epoch in (0, 3, 20):
        start = cosine_lr(epoch, 60, PEAK, CONFIG)
        for step in (0, 5, 9):
            position = Position(epoch=epoch, step=step)
            assert learning_rate(position, 10, 60, PEAK, CONFIG) == start
            assert learning_rate(position, 10, 60, PEAK, by_step) == cosine_lr(epoch + step / 10, 60, PEAK, CONFIG)
        assert learning_rate(Position(epoch=epoch), 10, 60, PEAK, by_step) == start
    halfway = learning_rate(Position(epoch=2, step=5), 10, 60, PEAK, by_step)
    assert halfway == pytest.approx(1e-6 + 2.5 * (PEAK - 1e-6) / 5)


def test_no_warm_up() -> None:
    """The first epoch then has the peak rate."""
    assert cosine_lr(0, 60, PEAK, OptimConfig(warmup_epochs=0)) == pytest.approx(PEAK)


def test_names_that_decay() -> None:
    """Vectors, biases and the exact names `cls_token` and `pos_embed` do not; similar names do."""
    matrix, vector = torch.zeros(1, 1, 4), torch.zeros(4)
    for name in ("bg_token", "pos_embed_cls", "pos_embed_pat", "head.weight", "x.cls_token"):
        assert has_weight_decay(name, matrix), name
    for name in ("cls_token", "pos_embed", "head.bias"):
        assert not has_weight_decay(name, matrix), name
    assert not has_weight_decay("norm.weight", vector)


def test_two_groups_of_all_that_is_trained() -> None:
    """Every trainable tensor once; the unused `pos_embed` and `norm` in neither group."""
    model = CTI(ViTConfig(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2), 3)
    optimizer = adamw(model, CONFIG, 64)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decaying, others = ([names[id(tensor)] for tensor in group["params"]] for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    assert sorted(decaying + others) == sorted(set(names.values()) - {"pos_embed", "norm.weight", "norm.bias"})
    assert {"bg_token", "pos_embed_cls", "pos_embed_pat", "head.weight", "blocks.0.attn.qkv.weight"} <= set(decaying)
    assert {"cls_token", "head.bias", "blocks.1.norm1.weight", "patch_embed.proj.bias"} <= set(others)
    assert optimizer.defaults["betas"] == (0.9, 0.999) and optimizer.defaults["eps"] == 1e-8
    assert {group["lr"] for group in optimizer.param_groups} == {scaled_lr(CONFIG, 64)}
    set_lr(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


def test_layers_have_rates_of_their_own() -> None:
    """0.5 ** (layers to the norm after the last block) for the backbone, 3 for all that is new; none is left out."""
    model = CTI(ViTConfig(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2), 3)
    optimizer = adamw(model, OptimConfig(layer_decay=0.5, new_scale=3.0), 64)
    set_lr(optimizer, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(tensor)]: group["lr"] for group in optimizer.param_groups for tensor in group["params"]}
    expected = {
        "patch_embed.proj.weight": 0.0125, "cls_token": 0.0125, "pos_embed_pat": 0.0125, "blocks.0.mlp.fc1.bias": 0.025,
        "blocks.1.attn.qkv.weight": 0.05, "head.weight": 0.3, "tokenizer.0.bias": 0.3, "bg_token": 0.3,
    }  # fmt: skip
    assert {name: rates[name] for name in expected} == pytest.approx(expected)
    assert rates.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    groups = [{"params": [model.head.weight, model.blocks[1].mlp.fc1.weight], "lr_scale": 10.0, "momentum": 1}]
    assert layered(groups, model, 2, 1.0, "") == groups
    assert [group["lr_scale"] for group in layered(groups, model, 2, 0.5, "")] == [10.0, 5.0]
