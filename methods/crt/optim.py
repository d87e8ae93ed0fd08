"""CRT's optimiser: SGD over both branches under a poly schedule.

The reference has an optimiser for each branch; both are stepped after one backward pass, which is the same.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from common.config import at_least, option
from common.optim import poly
from methods.crt.model import CRT

HEADS = "cnn.classifier.", "deit.head."


@dataclass
class CRTOptimConfig:
    """SGD with a poly schedule; nothing is scaled with the batch."""

    lr: float = option(0.1, "Learning rate of both backbones.", flag=("--cam_learning_rate", "--lr"))
    head_scale: float = option(10.0, "Learning rate of both classifiers, relative to the backbones'.")
    momentum: float = option(
        1e-4, "SGD's momentum: the reference passes the weight decay in its place, and its results come from that.",
        rule=at_least(0),
    )  # fmt: skip
    weight_decay: float = option(
        1e-4, "Weight decay of all trained parameters, norms, biases and tokens included.", flag="--cam_weight_decay"
    )
    power: float = option(0.9, "Exponent of the poly schedule.")


def parameter_groups(model: CRT) -> list[list[nn.Parameter]]:
    """The trained parameters: the CNN's backbone and classifier, the DeiT and its head."""
    groups: list[list[nn.Parameter]] = [[], [], [], []]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[2 * name.startswith("deit.") + name.startswith(HEADS)].append(parameter)
    return groups


def crt_sgd(groups: Sequence[Sequence[nn.Parameter]], config: CRTOptimConfig) -> torch.optim.SGD:
    """SGD over groups that are a backbone and a classifier by turns, such as those of `parameter_groups`."""
    scales = itertools.cycle((1.0, config.head_scale))
    return torch.optim.SGD(
        [{"params": list(group), "lr_scale": scale} for group, scale in zip(groups, scales, strict=False)],
        config.lr, config.momentum, weight_decay=config.weight_decay, fused=True,
    )  # fmt: skip


def crt_lr(step: int, total: int, config: CRTOptimConfig) -> float:
    """The backbones' learning rate in a step (from 0) of so many; that of the last one in later steps."""
    return config.lr * poly(min(step, total - 1), total, config.power)
