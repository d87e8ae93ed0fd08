"""IRN's optimiser: SGD in two groups."""

import torch
from torch import nn

from methods.irn.config import IRNOptimConfig
from methods.irn.model import IRN


def parameter_groups(model: IRN) -> list[list[nn.Parameter]]:
    """The trained parameters: the boundary branch and the backbone, the displacement branch."""
    groups: list[list[nn.Parameter]] = [[], []]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name.startswith("fc_dp")].append(parameter)
    return groups


def irn_optimizer(model: IRN, config: IRNOptimConfig) -> torch.optim.SGD:
    """SGD over `parameter_groups`."""
    scales = (1.0, config.displacement_scale)
    groups = [
        {"params": group, "lr_scale": scale} for group, scale in zip(parameter_groups(model), scales, strict=True)
    ]
    return torch.optim.SGD(groups, config.lr, config.momentum, weight_decay=config.weight_decay)
