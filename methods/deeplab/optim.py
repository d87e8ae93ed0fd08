"""DeepLab's optimiser: SGD in three groups."""

import torch

from methods.deeplab.config import DeepLabOptimConfig
from methods.deeplab.model import DeepLab


def deeplab_optimizer(model: DeepLab, config: DeepLabOptimConfig) -> torch.optim.SGD:
    """SGD over the backbone's kernels, the ASPP's kernels and its biases; the norms' parameters are frozen."""
    backbone: list[torch.nn.Parameter] = []
    kernels: list[torch.nn.Parameter] = []
    biases: list[torch.nn.Parameter] = []
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
