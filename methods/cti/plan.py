"""CTI's training step for ``scripts/plan.py``."""

from common.train.cost import StepWork, random_batch
from methods.cti.config import CTIConfig
from methods.cti.losses import CTIStep
from methods.cti.memory import TokenMemory
from methods.cti.model import CTI


class _FullMemory(TokenMemory):
    """A memory whose tensors without data cannot tell that it is full."""

    def is_full(self) -> bool:
        return True


def step_work(config: CTIConfig, classes: int, images: int) -> StepWork:
    """The step on ``images`` images with all losses on and the memory full."""
    model = CTI(config.model, classes).train()
    memory = _FullMemory(classes, config.loss.memory_size, model.embed_dim)
    loss = config.loss
    loss.skip_idle_cross = False  # a full memory is not idle
    step = CTIStep(model, loss, memory)
    views, labels = random_batch(images, config.model.img_size, classes)
    return StepWork(lambda: step(views, views.clone(), labels, config.train.epochs)["total"], model)
