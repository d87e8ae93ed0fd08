"""Optimiser groups and learning-rate schedules of the DeiT recipes."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from common.checkpoint import Position
from common.config import at_least, numbers, option


@dataclass
class OptimConfig:
    """AdamW with a warmed-up cosine schedule."""

    lr: float = option(
        5e-4,
        "Learning rate for a global batch of base_batch; it is scaled linearly with the global batch.",
        flag="--lr",
    )
    base_batch: int = option(512, "The global batch that lr is stated for.", rule=at_least(1))
    min_lr: float = option(1e-5, "Where the cosine ends (not scaled).", flag=("--min-lr", "--min_lr"))
    warmup_lr: float = option(1e-6, "Where the warm-up starts (not scaled).", flag=("--warmup-lr", "--warmup_lr"))
    warmup_epochs: int = option(
        5, "Epochs of linear warm-up; the cosine is not shifted by it.", flag=("--warmup-epochs", "--warmup_epochs")
    )
    weight_decay: float = option(
        0.05, "Weight decay of matrices and kernels.", flag=("--weight-decay", "--weight_decay")
    )
    betas: list[float] = option([0.9, 0.999], "AdamW's betas.", rule=numbers(2))
    eps: float = option(1e-8, "AdamW's epsilon.")
    schedule: str = option(
        "epoch", "When the learning rate changes: every epoch (reference) or every step.", choices=("epoch", "step")
    )


NO_DECAY = ("cls_token", "pos_embed")


def has_weight_decay(name: str, parameter: torch.Tensor, no_decay: tuple[str, ...] = NO_DECAY) -> bool:
    """Whether a parameter decays: not vectors and scalars, not biases, not the exact names given.

    Names are compared whole, as in the references: CTI's ``bg_token`` and ``pos_embed_cls`` do decay.
    """
    return parameter.ndim > 1 and not name.endswith(".bias") and name not in no_decay


def adamw(model: nn.Module, config: OptimConfig, global_batch: int) -> torch.optim.AdamW:
    """AdamW over the trainable parameters in two groups, with the scaled learning rate.

    Frozen parameters are left out: the references never give them a gradient, and AdamW does not decay what has none.
    """
    groups: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[has_weight_decay(name, parameter)].append(parameter)
    return torch.optim.AdamW(
        [{"params": groups[True], "weight_decay": config.weight_decay}, {"params": groups[False], "weight_decay": 0.0}],
        lr=scaled_lr(config, global_batch), betas=tuple(config.betas), eps=config.eps, fused=True,
    )  # fmt: skip


def scaled_lr(config: OptimConfig, global_batch: int) -> float:
    """The peak learning rate for a global batch, whatever the number of processes."""
    return config.lr * global_batch / config.base_batch


def cosine_lr(epoch: float, epochs: int, peak: float, config: OptimConfig) -> float:
    """The learning rate in force in an epoch (from 0; fractions for per-step schedules).

    Linear from ``warmup_lr`` to ``peak`` in the warm-up, then a cosine over all ``epochs`` (not shifted, so it sets in
    a little below the peak), ``min_lr`` after the end.
    """
    if epoch < config.warmup_epochs:
        return config.warmup_lr + epoch * (peak - config.warmup_lr) / config.warmup_epochs
    if epoch >= epochs:
        return config.min_lr
    return config.min_lr + 0.5 * (peak - config.min_lr) * (1 + math.cos(math.pi * epoch / epochs))


def learning_rate(position: Position, steps: int, epochs: int, peak: float, config: OptimConfig) -> float:
    """The learning rate of the next step, by the schedule configured.

    Args:
        steps: steps of an epoch.
    """
    fraction = position.step / steps if config.schedule == "step" else 0.0
    return cosine_lr(position.epoch + fraction, epochs, peak, config)


def poly(step: int, total: int, power: float) -> float:
    """The poly schedule's factor of the learning rate in a step (from 0) of so many."""
    return (1 - step / total) ** power


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of all groups; one may have an ``lr_scale`` that multiplies it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
