"""CRT's training step for ``scripts/plan.py``."""

from common.train.cost import StepWork, random_batch
from methods.crt.config import CRTConfig
from methods.crt.losses import CRTStep
from methods.crt.model import CRT


def step_work(config: CRTConfig, classes: int, images: int) -> StepWork:
    """The step on ``images`` crops with all losses on."""
    model = CRT(config.model, classes).train()
    step = CRTStep(model, config.loss)
    crops, labels = random_batch(images, config.views.crop_size, classes)
    return StepWork(lambda: step(crops, labels, config.train.epochs)["total"], model, states=1)  # SGD with momentum
