"""AdamW in the groups of the DeiT recipes."""

import re
from collections.abc import Sequence
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


NO_DECAY = ("cls_token", "pos_embed", "reg_token")
# Beginnings of the names of a ViT backbone's parameters.
BACKBONE = ("patch_embed.", "cls_token", "reg_token", "pos_embed", "norm_pre.", "blocks.", "norm.")


def has_weight_decay(name: str, parameter: torch.Tensor, no_decay: tuple[str, ...] = NO_DECAY) -> bool:
    """Whether a parameter decays: not vectors and scalars, not biases, not the exact names given.

    Names are compared whole, as in the references: CTI's ``bg_token`` and ``pos_embed_cls`` do decay.
    """
    return parameter.ndim > 1 and not name.endswith(".bias") and name not in no_decay


def lr_scale(name: str, depth: int, layer_decay: float, new_scale: float, prefix: str = "") -> float:
    """The learning rate of a parameter, relative to that of the last layer of a ViT backbone.

    A step of ``layer_decay`` lies between two layers: the embedding (patches, positions, class and register tokens),
    the blocks, and the norm after them.

    Args:
        name: of the parameter in the network.
        depth: number of blocks.
        new_scale: of all parameters outside of the backbone.
        prefix: of the backbone's names in the network.
    """
    own = name.removeprefix(prefix)
    if not name.startswith(prefix) or not own.startswith(BACKBONE):
        return new_scale
    block = re.match(r"blocks\.(\d+)\.", own)
    layer = int(block[1]) + 1 if block else depth + 1 if own.startswith("norm.") else 0
    return layer_decay ** (depth + 1 - layer)


def adamw(model: nn.Module, config: OptimConfig, global_batch: int) -> torch.optim.AdamW:
    """AdamW over the trainable parameters in groups of one weight decay and rate, with the scaled learning rate.

    By default these are two groups. Frozen parameters are left out: they have no gradient in the references, and AdamW
    does not decay parameters without one.

    Args:
        model: a ViT backbone with a method's layers, if the configuration sets rates for layers.
    """
    depth = len(list(model.get_submodule("blocks").children())) if config.layer_decay != 1 else 0
    groups: dict[tuple[bool, float], list[torch.Tensor]] = {(True, 1.0): [], (False, 1.0): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = lr_scale(name, depth, config.layer_decay, config.new_scale)
            groups.setdefault((has_weight_decay(name, parameter), scale), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": config.weight_decay * decays, "lr_scale": scale}
            for (decays, scale), parameters in groups.items()
        ],
        lr=scaled_lr(config, global_batch), betas=(config.betas[0], config.betas[1]), eps=config.eps, fused=True,
    )  # fmt: skip


def layered(
    groups: Sequence[dict[str, Any]], model: nn.Module, depth: int, layer_decay: float, prefix: str
) -> list[dict[str, Any]]:
    """Groups of parameters, each with an ``lr_scale``, cut into groups of one rate by the layers of a backbone.

    Args:
        depth: number of the backbone's blocks.
        layer_decay: see `lr_scale`; with 1 the groups stay as they are.
        prefix: of the backbone's names in the network.
    """
    if layer_decay == 1:
        return list(groups)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    cut: dict[tuple[int, float], list[torch.Tensor]] = {}
    for number, group in enumerate(groups):
        for parameter in group["params"]:
            scale = lr_scale(names[id(parameter)], depth, layer_decay, 1.0, prefix)
            cut.setdefault((number, group["lr_scale"] * scale), []).append(parameter)
    return [{**groups[number], "params": parameters, "lr_scale": scale} for (number, scale), parameters in cut.items()]


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Sets the learning rate of all groups; one may have an ``lr_scale`` that multiplies it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
