"""PSA's optimiser: SGD in four groups under a poly schedule."""

from dataclasses import dataclass

import torch
from torch import nn

from common.config import at_least, option
from common.optim import poly
from methods.psa.affinity import HEADS, AffinityNet

BIAS_SCALE = 2.0  # learning rate of biases, which do not decay


@dataclass
class SGDConfig:
    """SGD with a poly schedule; the defaults are MCTformer's."""

    lr: float = option(0.01, "Learning rate of the trunk, in the first step.", flag="--lr")
    head_scale: float = option(10.0, "Learning rate of the heads, relative to the trunk's.")
    momentum: float = option(
        5e-4, "SGD's momentum: the reference's own, which passes its weight decay in this place (its 0.9 is the power)."
    )
    weight_decay: float = option(5e-4, "Weight decay, biases excepted.", flag="--wt_dec")
    power: float = option(0.9, "Exponent of the poly schedule.", rule=at_least(0))


def parameter_groups(model: AffinityNet) -> list[list[nn.Parameter]]:
    """The trained parameters: the trunk's weights and biases, the heads' weights and biases."""
    groups: list[list[nn.Parameter]] = [[], [], [], []]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[2 * name.startswith(HEADS) + name.endswith(".bias")].append(parameter)
    return groups


def affinity_sgd(model: AffinityNet, config: SGDConfig) -> torch.optim.SGD:
    """The optimiser; its groups' ``lr_scale`` is relative to the learning rate of `affinity_lr`."""
    scales = (1.0, BIAS_SCALE, config.head_scale, BIAS_SCALE * config.head_scale)
    decays = (config.weight_decay, 0.0) * 2
    groups = [
        {"params": parameters, "lr": config.lr * scale, "lr_scale": scale, "weight_decay": decay}
        for parameters, scale, decay in zip(parameter_groups(model), scales, decays, strict=True)
    ]
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)


def affinity_lr(step: int, total: int, config: SGDConfig) -> float:
    """The trunk's learning rate in a step (from 0) of so many."""
    return config.lr * poly(step, total, config.power)
