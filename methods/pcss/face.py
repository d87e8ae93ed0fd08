"""PCSS as inference sees it."""

from collections.abc import Callable

from torch import Tensor

from common.seeds.face import SeedFace
from methods.pcss.config import PCSSConfig
from methods.pcss.model import PCSS


def build(config: PCSSConfig, num_classes: int) -> PCSS:
    """The network."""
    return PCSS(config.model, num_classes)


def logits_of(model: PCSS) -> Callable[[Tensor], Tensor]:
    """The class tokens' logits."""
    return lambda images: model.logits(images)[0]


FACE = SeedFace(build, logits_of=logits_of)
