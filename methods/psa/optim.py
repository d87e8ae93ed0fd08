"""PSA's optimiser: SGD in four groups."""

import torch
from torch import nn

from methods.psa.affinity import HEADS, AffinityNet
from methods.psa.config import PSAOptimConfig

BIAS_SCALE = 2.0  # learning rate of biases, which do not decay


def parameter_groups(model: AffinityNet) -> list[list[nn.Parameter]]:
    """The trained parameters: the trunk's weights and biases, the heads' weights and biases."""
    groups: list[list[nn.Parameter]] = [[], [], [], []]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[2 * name.startswith(HEADS) + name.endswith(".bias")].append(parameter)
    return groups


def psa_optimizer(model: AffinityNet, config: PSAOptimConfig) -> torch.optim.SGD:
    """SGD over `parameter_groups`; biases do not decay."""
    scales = (1.0, BIAS_SCALE, config.head_scale, BIAS_SCALE * config.head_scale)
    decays = (config.weight_decay, 0.0) * 2
    groups = [
        {"params": parameters, "lr": config.lr * scale, "lr_scale": scale, "weight_decay": decay}
        for parameters, scale, decay in zip(parameter_groups(model), scales, decays, strict=True)
    ]
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
