"""ToCo's optimiser: AdamW in four groups."""

import torch
from torch import nn

from common.train.optim import layered
from methods.toco.config import ToCoOptimConfig
from methods.toco.model import ToCo


def parameter_groups(model: ToCo) -> list[list[nn.Parameter]]:
    """The trained parameters: encoder, its norms, classifiers and projection head, decoder."""
    groups: list[list[nn.Parameter]] = [[], [], [], []]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = name.partition(".")[0]
            groups[("norm" in name) if part == "encoder" else 3 if part == "decoder" else 2].append(parameter)
    return groups


def toco_optimizer(model: ToCo, config: ToCoOptimConfig) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`, the encoder's by layer if their rates differ."""
    scales = (1.0, 1.0, config.head_scale, config.head_scale)
    groups = [
        {"params": group, "lr_scale": scale} for group, scale in zip(parameter_groups(model), scales, strict=True)
    ]
    return torch.optim.AdamW(
        layered(groups, model, model.encoder.depth, config.layer_decay, "encoder."),
        lr=config.lr, betas=(config.betas[0], config.betas[1]), eps=config.eps, weight_decay=config.weight_decay,
        fused=True,
    )  # fmt: skip
