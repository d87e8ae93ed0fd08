"""The two optimisers of CRT's object localisation, which a training sees as one."""

from dataclasses import dataclass
from typing import Any

import torch

from common.config import at_least, numbers, option
from common.optim import OptimConfig, adamw
from methods.crt.wsol_model import WSOL


@dataclass
class WSOLOptimConfig:
    """AdamW for the DeiT, in steps; SGD without momentum for the CNN, constant. Nothing is scaled with the batch."""

    lr: float = option(5e-5, "Learning rate of the DeiT.", flag="--lr")
    decay: float = option(0.1, "Factor by which the DeiT's learning rate falls.")
    decay_epochs: int = option(
        30, "It falls at the start of every epoch, counted from 1, that this divides.", rule=at_least(1)
    )
    weight_decay: float = option(
        0.05, "Weight decay of the DeiT's matrices and kernels.", flag=("--weight-decay", "--weight_decay")
    )
    betas: list[float] = option([0.9, 0.999], "AdamW's betas.", rule=numbers(2))
    eps: float = option(1e-8, "AdamW's epsilon.")
    cnn_lr: float = option(0.005, "Learning rate of the CNN's backbone.")
    cnn_head_scale: float = option(10.0, "Learning rate of the CNN's classifier, relative to its backbone's.")
    cnn_weight_decay: float = option(1e-4, "Weight decay of all that is trained of the CNN.")

    def lr_in(self, epoch: int) -> float:
        """The DeiT's learning rate in an epoch (from 0)."""
        return self.lr * self.decay ** ((epoch + 1) // self.decay_epochs)


class PairedOptimizer:
    """Two optimisers as one, as far as a `common.trainer.Trainer` and a `GradScaler` use it.

    A learning rate that is set holds for the groups of the first; those of the second keep their own.
    """

    def __init__(self, scheduled: torch.optim.Optimizer, constant: torch.optim.Optimizer) -> None:
        """See the class."""
        self.scheduled = scheduled
        self.constant = constant
        self._rates = [group["lr"] for group in constant.param_groups]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both, those of the scheduled one first."""
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
