"""DeepLab's training step for ``scripts/plan.py``."""

import torch

from common.train.cost import StepWork, random_batch
from methods.deeplab.config import DeepLabConfig
from methods.deeplab.losses import DeepLabStep
from methods.deeplab.model import DeepLab


def step_work(config: DeepLabConfig, classes: int, images: int) -> StepWork:
    """The step on ``images`` crops."""
    model = DeepLab(config.model, classes + 1).train()
    step = DeepLabStep(model)
    size = config.views.crop_size
    crops, _ = random_batch(images, size, classes)
    targets = torch.zeros(images, size, size, dtype=torch.uint8)
    return StepWork(lambda: step(crops, targets)["total"], model, states=1)  # SGD with momentum
