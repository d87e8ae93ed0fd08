"""DeepLab's optimiser: SGD in three groups."""

import torch
from torch import nn

from methods.deeplab.config import DeepLabOptimConfig
from methods.deeplab.model import DeepLab


def parameter_groups(model: DeepLab) -> list[list[nn.Parameter]]:
    """The trained parameters: the backbone's kernels, the ASPP's kernels, the ASPP's biases."""
    groups: list[list[nn.Parameter]] = [[], [], []]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[0 if ".aspp." not in name else 2 if name.endswith(".bias") else 1].append(parameter)
    return groups


def deeplab_optimizer(model: DeepLab, config: DeepLabOptimConfig) -> torch.optim.SGD:
    """SGD over `parameter_groups`; biases do not decay."""
    scales = (1.0, config.head_scale, config.head_bias_scale)
    decays = (config.weight_decay, config.weight_decay, 0.0)
    groups = [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for parameters, scale, decay in zip(parameter_groups(model), scales, decays, strict=True)
    ]
    return torch.optim.SGD(groups, config.lr, config.momentum, fused=True)
