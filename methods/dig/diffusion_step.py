"""The training step of DiG's diffusion model, its random draws and its optimiser."""

import torch
from torch import Tensor

from common.run.processes import Processes
from common.train.step import Batch, TrainingStep
from methods.dig.config import TIMESTEPS
from methods.dig.diffusion import GaussianDiffusion
from methods.dig.diffusion_config import DiffusionOptimConfig


class DiffusionStep(TrainingStep):
    """Model and loss as one module that maps a batch to losses; what DistributedDataParallel wraps."""

    def __init__(self, diffusion: GaussianDiffusion) -> None:
        super().__init__()
        self.diffusion = diffusion

    def forward(self, images: Tensor, t: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """One training step's loss.

        Args:
            images: (B, 3, S, S) in [0, 1].
            t: timesteps (B,).
            noise: (B, 3, S, S).

        Returns:
            ``total`` to minimise.
        """
        return {"total": self.diffusion(images, t, noise)}


def draw_noise(batch: Batch, processes: Processes) -> tuple[Tensor, Tensor]:
    """Timesteps (B,) and normal noise (B, 3, S, S) for this process's part of a micro-batch.

    They are drawn for the whole micro-batch, so that any number of processes, and a resumed run, trains with the same.
    """
    (images,) = batch.views
    device = images.device
    size = len(images)
    count = size * processes.world
    own = slice(size * processes.rank, size * (processes.rank + 1))
    t = torch.randint(TIMESTEPS, (count,), generator=batch.draws)
    seed = int(torch.randint(2**62, (), generator=batch.draws))  # noise is large: it is drawn on the device
    generator = torch.Generator(device).manual_seed(seed)
    noise = torch.randn((count, *images.shape[1:]), generator=generator, device=device)
    return t[own].to(device, non_blocking=True), noise[own]


def diffusion_optimizer(model: GaussianDiffusion, config: DiffusionOptimConfig) -> torch.optim.Adam:
    """Adam over all parameters."""
    betas = (config.betas[0], config.betas[1])
    return torch.optim.Adam(model.parameters(), config.lr, betas, config.eps, fused=True)
