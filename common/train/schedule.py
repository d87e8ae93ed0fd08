"""Learning-rate schedules: the warmed-up cosine of the DeiT recipes, and poly. Imports no PyTorch."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from common.run.config import ABOVE_ZERO, BELOW_ONE, Rule, at_least, numbers, option
from common.train.course import Position

# Learning rate of the next step, from the position and the total steps of the run.
Rate = Callable[[Position, int], float]


LAYER_DECAY = Rule("above 0, at most 1", lambda value: 0 < value <= 1)


@dataclass
class OptimConfig:
    """AdamW with a warmed-up cosine schedule."""

    lr: float = option(
        5e-4,
        "Learning rate for a global batch of base_batch; it is scaled linearly with the global batch.",
        flag="--lr",
        rule=at_least(0),
    )
    base_batch: int = option(512, "The global batch that lr is stated for.", rule=at_least(1))
    min_lr: float = option(1e-5, "Where the cosine ends (not scaled).", flag=("--min-lr", "--min_lr"), rule=at_least(0))
    warmup_lr: float = option(
        1e-6, "Where the warm-up starts (not scaled).", flag=("--warmup-lr", "--warmup_lr"), rule=at_least(0)
    )
    warmup_epochs: int = option(
        5,
        "Epochs of linear warm-up; the cosine is not shifted by it.",
        flag=("--warmup-epochs", "--warmup_epochs"),
        rule=at_least(0),
    )
    weight_decay: float = option(
        0.05, "Weight decay of matrices and kernels.", flag=("--weight-decay", "--weight_decay"), rule=at_least(0)
    )
    betas: list[float] = option([0.9, 0.999], "AdamW's betas.", rule=numbers(2, BELOW_ONE))
    eps: float = option(1e-8, "AdamW's epsilon.", rule=at_least(0))
    layer_decay: float = option(
        1.0, "Factor of the learning rate from each layer of the backbone to the one before it; the embedding's is the "
        "smallest.", rule=LAYER_DECAY,
    )  # fmt: skip
    new_scale: float = option(
        1.0, "Learning rate of parameters that are not the backbone's, such as heads, relative to lr.", rule=ABOVE_ZERO
    )
    schedule: str = option(
        "epoch", "When the learning rate changes: every epoch (reference) or every step.", choices=("epoch", "step")
    )


def scaled_lr(config: OptimConfig, global_batch: int) -> float:
    """The peak learning rate for a global batch; it does not depend on the number of processes."""
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
    """Learning rate of the next step under the warmed-up cosine.

    Args:
        steps: steps of an epoch.
    """
    fraction = position.step / steps if config.schedule == "step" else 0.0
    return cosine_lr(position.epoch + fraction, epochs, peak, config)


def poly(step: int, total: int, power: float) -> float:
    """Factor of the learning rate at `step` (from 0) of `total` under the poly schedule."""
    return (1 - step / total) ** power
