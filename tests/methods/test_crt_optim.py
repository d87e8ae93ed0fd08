"""CRT's optimiser: which parameters learn at which rate, and by which rule."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from common.nets.options import ResNetConfig, ViTConfig
from common.train.course import Position
from common.train.optim import set_lr
from methods.crt.config import CRTModelConfig, CRTOptimConfig
from methods.crt.model import CRT
from methods.crt.optim import crt_optimizer, grouped_sgd, parameter_groups

pytestmark = pytest.mark.usefixtures("one_thread")


def test_groups_are_backbones_and_classifiers() -> None:
    """Every trained parameter is in one group; the CNN's first stages are in none."""
    deit = ViTConfig(img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2, drop_path=0.0)
    model = CRT(CRTModelConfig(ResNetConfig("resnet18", blocks=[1, 1, 1, 1]), deit), 3)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = [{names[parameter] for parameter in group} for group in parameter_groups(model)]
    assert groups[1] == {"cnn.classifier.weight"} and groups[3] == {"deit.head.weight", "deit.head.bias"}
    assert {name.split(".")[2] for name in groups[0]} == {"layer3", "layer4"}
    assert {"deit.cls_token", "deit.pos_embed", "deit.norm.bias"} < groups[2]
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert set.union(*groups) == trained and sum(map(len, groups)) == len(trained)
    scales = [group["lr_scale"] for group in crt_optimizer(model, CRTOptimConfig()).param_groups]
    assert scales == [1, 10, 1, 10]


@pytest.mark.parametrize("momentum", [1e-4, 0.9])
def test_the_rule_by_hand(momentum: float) -> None:
    """Decay into the gradient, gradient into the velocity, which is the first gradient at first."""
    rng, total = np.random.default_rng(0), 6
    config = CRTOptimConfig(lr=0.2, head_scale=4, momentum=momentum, weight_decay=0.01)
    values = rng.standard_normal((2, 3))
    groups = [[nn.Parameter(torch.tensor(value))] for value in values]
    optimizer, velocity = grouped_sgd(groups, config), np.zeros((2, 3))
    for step in range(total + 2):
        grads = rng.standard_normal((2, 3))
        for (parameter,), grad in zip(groups, grads, strict=True):
            parameter.grad = torch.tensor(grad)
        set_lr(optimizer, config.rate(Position(total_steps=step), total))
        optimizer.step()
        velocity = momentum * velocity + grads + 0.01 * values
        values -= np.array([[1], [4]]) * 0.2 * (1 - min(step, total - 1) / total) ** 0.9 * velocity
        np.testing.assert_allclose([parameter.tolist() for (parameter,) in groups], values, rtol=1e-10)


def test_the_published_schedule() -> None:
    """Falls from 0.1 over all steps, and never to 0."""
    config = CRTOptimConfig()
    rates = [config.rate(Position(total_steps=step), 6610) for step in range(6612)]
    assert rates[0] == 0.1 and all(later < earlier for earlier, later in itertools.pairwise(rates[:6610]))
    assert rates[6609] == rates[6610] == rates[6611] == pytest.approx(0.1 / 6610**0.9)
    assert config.momentum == 1e-4
