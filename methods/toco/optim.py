"""ToCo's optimiser: AdamW in four groups under a warmed-up poly schedule."""

from dataclasses import dataclass

import torch

from common.config import at_least, numbers, option
from common.optim import poly
from methods.toco.model import ToCo


@dataclass
class ToCoOptimConfig:
    """AdamW with a poly schedule; nothing is scaled with the batch."""

    lr: float = option(6e-5, "Learning rate of the encoder.", flag="--lr")
    head_scale: float = option(10.0, "Learning rate of all heads, relative to the encoder's.")
    warmup_steps: int = option(
        1500, "Steps of linear warm-up; the poly schedule is not shifted by it.", rule=at_least(0)
    )
    warmup_ratio: float = option(1e-6, "Where the warm-up starts, relative to the learning rate.", flag="--warmup_lr")
    power: float = option(0.9, "Exponent of the poly schedule.", flag="--power")
    weight_decay: float = option(1e-2, "Weight decay of all parameters, biases and norms included.", flag="--wt_decay")
    betas: list[float] = option([0.9, 0.999], "AdamW's betas.", rule=numbers(2))
    eps: float = option(1e-8, "AdamW's epsilon.")


def toco_optimizer(model: ToCo, config: ToCoOptimConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters: encoder, its norms, classifiers and projection head, decoder."""
    groups: list[list[torch.nn.Parameter]] = [[], [], [], []]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = name.partition(".")[0]
            groups[("norm" in name) if part == "encoder" else 3 if part == "decoder" else 2].append(parameter)
    scales = (1.0, 1.0, config.head_scale, config.head_scale)
    return torch.optim.AdamW(
        [{"params": group, "lr_scale": scale} for group, scale in zip(groups, scales, strict=True)],
        lr=config.lr, betas=tuple(config.betas), eps=config.eps, weight_decay=config.weight_decay, fused=True,
    )  # fmt: skip


def toco_lr(step: int, total: int, config: ToCoOptimConfig) -> float:
    """The encoder's learning rate in a step (from 0) of so many."""
    if step < config.warmup_steps:
        return config.lr * (1 - (1 - step / config.warmup_steps) * (1 - config.warmup_ratio))
    return config.lr * poly(step, total, config.power)
