"""CTI as inference sees it."""

from collections.abc import Callable

from torch import Tensor

from common.seeds.face import SeedFace
from methods.cti.config import CTIConfig
from methods.cti.model import CTI


def build(config: CTIConfig, num_classes: int) -> CTI:
    """The network."""
    return CTI(config.model, num_classes)


def logits_of(model: CTI) -> Callable[[Tensor], Tensor]:
    """The class tokens' logits."""
    return lambda images: model(images).cls


FACE = SeedFace(build, logits_of=logits_of)
