"""AdamW in the groups of the DeiT recipes."""

from typing import Any, Protocol

import torch
from torch import nn

from common.train.schedule import OptimConfig, scaled_lr


class Optimizer(Protocol):
    """The part of an optimiser that the training uses; torch's own fulfil it."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...

    def step(self) -> Any: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> None: ...


NO_DECAY = ("cls_token", "pos_embed")


def has_weight_decay(name: str, parameter: torch.Tensor, no_decay: tuple[str, ...] = NO_DECAY) -> bool:
    """Whether a parameter decays: not vectors and scalars, not biases, not the exact names given.

    Names are compared whole, as in the references: CTI's ``bg_token`` and ``pos_embed_cls`` do decay.
    """
    return parameter.ndim > 1 and not name.endswith(".bias") and name not in no_decay


def adamw(model: nn.Module, config: OptimConfig, global_batch: int) -> torch.optim.AdamW:
    """AdamW over the trainable parameters in two groups, with the scaled learning rate.

    Frozen parameters are left out. They have no gradient in the references, and AdamW does not decay parameters without
    one.
    """
    groups: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[has_weight_decay(name, parameter)].append(parameter)
    return torch.optim.AdamW(
        [{"params": groups[True], "weight_decay": config.weight_decay}, {"params": groups[False], "weight_decay": 0.0}],
        lr=scaled_lr(config, global_batch), betas=(config.betas[0], config.betas[1]), eps=config.eps, fused=True,
    )  # fmt: skip


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Sets the learning rate of all groups; one may have an ``lr_scale`` that multiplies it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
