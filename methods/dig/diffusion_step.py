"""The training step of DiG's diffusion model, and its random draws."""

import torch
from torch import Tensor

from common.run.processes import Processes
from common.train.step import Batch, TrainingStep
from methods.dig.config import TIMESTEPS
from methods.dig.diffusion import GaussianDiffusion


class DiffusionStep(TrainingStep):
    """Model and loss as one module."""

    def __init__(self, diffusion: GaussianDiffusion) -> None:
        super().__init__()
        self.diffusion = diffusion

    def forward(self, images: Tensor, t: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """The loss of images (B, 3, S, S) in [0, 1] at timesteps (B,) with noise (B, 3, S, S)."""
        return {"total": self.diffusion(images, t, noise)}


def draw_noise(batch: Batch, processes: Processes) -> tuple[Tensor, Tensor]:
    """Timesteps (B,) and normal noise (B, 3, S, S) for this process's part of a micro-batch.

    They are drawn for the whole micro-batch, so that any number of processes, and a resumed run, trains with the same.
    """
    (images,) = batch.views
    size, device = len(images), images.device
    count, own = size * processes.world, slice(size * processes.rank, size * (processes.rank + 1))
    t = torch.randint(TIMESTEPS, (count,), generator=batch.draws)
    seed = int(torch.randint(2**62, (), generator=batch.draws))  # noise is drawn where it is needed: it is much
    generator = torch.Generator(device).manual_seed(seed)
    noise = torch.randn((count, *images.shape[1:]), generator=generator, device=device)
    return t[own].to(device), noise[own]
