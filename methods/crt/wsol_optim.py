"""CRT's optimiser of object localisation: one optimiser for each network, joined to one."""

from typing import Any

import torch

from common.train.optim import adamw
from common.train.schedule import OptimConfig
from methods.crt.wsol_config import WSOLOptimConfig
from methods.crt.wsol_model import WSOL


class PairedOptimizer:
    """Two optimisers as one, as far as the training and a `GradScaler` use an optimiser.

    The training's learning rate applies to the groups of the first; the groups of the second keep their own.
    """

    def __init__(self, scheduled: torch.optim.Optimizer, constant: torch.optim.Optimizer) -> None:
        """See the class."""
        self.scheduled = scheduled
        self.constant = constant
        self._rates = [group["lr"] for group in constant.param_groups]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both, the scheduled optimiser's first."""
        return [*self.scheduled.param_groups, *self.constant.param_groups]

    def step(self) -> None:
        """One step of both."""
        for group, rate in zip(self.constant.param_groups, self._rates, strict=True):
            group["lr"] = rate
        self.scheduled.step()
        self.constant.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients of both."""
        self.scheduled.zero_grad(set_to_none)
        self.constant.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"scheduled": self.scheduled.state_dict(), "constant": self.constant.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` returned."""
        self.scheduled.load_state_dict(state["scheduled"])
        self.constant.load_state_dict(state["constant"])


def wsol_optimizer(model: WSOL, config: WSOLOptimConfig) -> PairedOptimizer:
    """AdamW over the DeiT (vectors, biases, class token and position embedding do not decay), SGD over the CNN."""
    rule = OptimConfig(lr=config.lr, base_batch=1, weight_decay=config.weight_decay, betas=config.betas, eps=config.eps)
    backbone = [parameter for parameter in model.cnn.backbone.parameters() if parameter.requires_grad]
    head = {"params": model.cnn.classifier.parameters(), "lr": config.cnn_lr * config.cnn_head_scale}
    groups: list[dict[str, Any]] = [{"params": backbone}, head]
    sgd = torch.optim.SGD(groups, lr=config.cnn_lr, weight_decay=config.cnn_weight_decay)
    return PairedOptimizer(adamw(model.deit, rule, global_batch=1), sgd)
