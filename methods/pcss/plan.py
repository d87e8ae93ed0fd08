"""PCSS's training step for ``scripts/plan.py``."""

import torch

from common.train.cost import StepWork, random_batch
from methods.pcss.config import PCSSConfig
from methods.pcss.importance import FrequencyImportance
from methods.pcss.losses import PCSSStep
from methods.pcss.model import PCSS


def step_work(config: PCSSConfig, classes: int, images: int) -> StepWork:
    """The step on ``images`` images with all losses on."""
    model = PCSS(config.model, classes).train()
    size = config.model.img_size
    step = PCSSStep(model, config.loss, FrequencyImportance(classes, size, config.fim))
    views, labels = random_batch(images, size, classes)
    partners = torch.arange(images).roll(1)
    return StepWork(lambda: step(views, labels, config.train.epochs, partners)["total"], model)
