"""IRN's optimiser: SGD in two groups."""

import torch

from methods.irn.config import IRNOptimConfig
from methods.irn.model import IRN


def irn_optimizer(model: IRN, config: IRNOptimConfig) -> torch.optim.SGD:
    """SGD over the groups of `IRN.parameter_groups`."""
    scales = 1.0, config.displacement_scale
    groups = [
        {"params": group, "lr_scale": scale} for group, scale in zip(model.parameter_groups(), scales, strict=True)
    ]
    return torch.optim.SGD(groups, config.lr, config.momentum, weight_decay=config.weight_decay)
