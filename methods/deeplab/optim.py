"""DeepLab's optimiser: SGD in three groups under a stepped poly schedule."""

from dataclasses import dataclass

import torch

from common.config import at_least, option
from common.optim import poly
from methods.deeplab.model import DeepLab


@dataclass
class DeepLabOptimConfig:
    """SGD with a poly schedule; nothing is scaled with the batch."""

    lr: float = option(2.5e-4, "Learning rate of the backbone's kernels.", flag="--lr")
    head_scale: float = option(10.0, "Learning rate of the ASPP's kernels, relative to the backbone's.")
    head_bias_scale: float = option(20.0, "Learning rate of the ASPP's biases, relative to the backbone's.")
    momentum: float = option(0.9, "Momentum.")
    weight_decay: float = option(5e-4, "Weight decay of kernels; biases have none.", flag="--wt_decay")
    power: float = option(0.9, "Exponent of the poly schedule.", flag="--power")
    lr_decay: int = option(10, "Steps for which the learning rate stays.", rule=at_least(1))


def deeplab_optimizer(model: DeepLab, config: DeepLabOptimConfig) -> torch.optim.SGD:
    """SGD over the backbone's kernels, the ASPP's kernels and its biases; the norms' parameters are frozen."""
    backbone, kernels, biases = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = backbone if ".aspp." not in name else biases if name.endswith(".bias") else kernels
            group.append(parameter)
    groups = [
        {"params": backbone, "lr_scale": 1.0, "weight_decay": config.weight_decay},
        {"params": kernels, "lr_scale": config.head_scale, "weight_decay": config.weight_decay},
        {"params": biases, "lr_scale": config.head_bias_scale, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, config.lr, config.momentum, fused=True)


def deeplab_lr(step: int, total: int, config: DeepLabOptimConfig) -> float:
    """The backbone's learning rate in a step (from 0) of so many; after the last one 0."""
    return config.lr * poly(step // config.lr_decay * config.lr_decay, total, config.power)
