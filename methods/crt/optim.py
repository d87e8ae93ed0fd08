"""CRT's optimiser: SGD over both branches.

The reference has an optimiser for each branch; both are stepped after one backward pass, which is the same.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from common.train.optim import layered
from methods.crt.config import CRTOptimConfig
from methods.crt.model import CRT

HEADS = "cnn.classifier.", "deit.head."


def parameter_groups(model: CRT) -> list[list[nn.Parameter]]:
    """The trained parameters: the CNN's backbone and classifier, the DeiT and its head."""
    groups: list[list[nn.Parameter]] = [[], [], [], []]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[2 * name.startswith("deit.") + name.startswith(HEADS)].append(parameter)
    return groups


def crt_optimizer(model: CRT, config: CRTOptimConfig) -> torch.optim.SGD:
    """SGD over `parameter_groups`."""
    return grouped_sgd(parameter_groups(model), config, model)


def grouped_sgd(
    groups: Sequence[Sequence[nn.Parameter]], config: CRTOptimConfig, model: CRT | None = None
) -> torch.optim.SGD:
    """SGD over groups of parameters, alternating a backbone and its classifier; a model's DeiT by layer, if asked."""
    scales = itertools.cycle((1.0, config.head_scale))
    scaled = [{"params": list(group), "lr_scale": scale} for group, scale in zip(groups, scales, strict=False)]
    if model:
        scaled = layered(scaled, model, model.deit.depth, config.layer_decay, "deit.")
    return torch.optim.SGD(
        scaled, config.lr, config.momentum, weight_decay=config.weight_decay, fused=True,
    )  # fmt: skip
