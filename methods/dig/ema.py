"""The moving average of a diffusion model's weights, kept for previews; DiG itself uses the raw weights."""

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from methods.dig.diffusion import GaussianDiffusion


def ema_decay(step: int, after: int = 100, most: float = 0.995) -> float:
    """Share of the average that an update keeps: 1 - (1 + n)^(-2/3), n = step - after; 0 before, at most ``most``.

    Args:
        step: number of the optimiser step, from 0.
        after: the last step at which the weights are copied.
    """
    return min(1 - (1 + max(step - after, 0)) ** (-2 / 3), most)


class EMA(nn.Module):
    """An average of another module's parameters (buffers are copied), with ema_pytorch's state dict.

    The state dict holds ``online_model.*``, ``ema_model.*``, ``initted`` (float32, (1,)) and ``step`` (int64, (1,)).

    Attributes:
        online_model: the module that is trained.
        ema_model: its average, without gradients.
    """

    ema_model: GaussianDiffusion
    initted: Tensor
    step: Tensor

    def __init__(self, model: GaussianDiffusion, decay: float = 0.995, every: int = 10, after: int = 100) -> None:
        """Starts with a copy.

        Args:
            decay: final value of the decay.
            every: steps from one update to the next.
            after: the last step at which the weights are copied instead of averaged.
        """
        super().__init__()
        self.online_model = model
        self.ema_model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.every = every
        self.after = after
        self.register_buffer("initted", torch.zeros(1))
        self.register_buffer("step", torch.zeros(1, dtype=torch.int64))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after an optimiser step.

        Args:
            step: number of the optimiser step, from 0; an argument, as reading the buffer would wait for the GPU.
        """
        self.step.fill_(step + 1)
        if step % self.every:
            return
        decay = ema_decay(step, self.after, self.decay)
        if step > self.after and not self.initted.item():  # the first average starts from the present weights
            decay = 0.0
            self.initted.fill_(1)
        averages = list(self.ema_model.parameters())
        current = list(self.online_model.parameters())
        get_ema_multi_avg_fn(decay)(averages, current, None)
        for kept, table in zip(self.ema_model.buffers(), self.online_model.buffers(), strict=True):
            kept.copy_(table)
