"""ToCo's training step for ``scripts/plan.py``."""

import torch
from torch import Tensor

from common.train.cost import StepWork, random_batch
from methods.toco.config import ToCoConfig
from methods.toco.energy import Energy, small_probabilities
from methods.toco.model import ToCo
from methods.toco.step import ToCoStep


class PlannedStep(ToCoStep):
    """The step with stand-ins of the right shape where the host reads values: targets, lattice, places of crops.

    The work left out (PAR, the lattice's filter) has no gradient and no matrix products.
    """

    def _targets(self, images: Tensor, cams: Tensor, labels: Tensor, boxes: Tensor, most: int | None) -> Tensor:
        return torch.zeros(len(images), *images.shape[-2:], dtype=torch.int64, device=images.device)

    def _energy(self, logits: Tensor, images: Tensor, targets: Tensor, boxes: Tensor) -> Tensor:
        probs = small_probabilities(logits, self.energy.scale)
        return self.energy.weight * Energy.apply(probs, torch.zeros_like(probs))

    def _crops(self, source: Tensor, cams_aux: Tensor, labels: Tensor, picks: Tensor) -> tuple[Tensor, Tensor]:
        crops = source[:, :, : self.crop_size, : self.crop_size].repeat(picks.shape[1], 1, 1, 1)
        return crops, torch.ones(len(source), 2 + picks.shape[1], device=source.device)


def step_work(config: ToCoConfig, classes: int, images: int) -> StepWork:
    """The step on ``images`` images with all losses on."""
    model = ToCo(config.model, classes).train()
    step = PlannedStep(model, config.loss, config.labels, config.energy, config.views.local_size)
    size = config.views.crop_size
    views, labels = random_batch(images, size, classes)
    boxes = torch.tensor([[0, size, 0, size]] * images)
    picks = torch.zeros(images, config.views.local_crops)
    last = config.train.max_steps
    return StepWork(lambda: step(views, views.clone(), views.clone(), boxes, labels, last, picks)["total"], model)
