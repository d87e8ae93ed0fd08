"""DiG as inference sees it: without the parts that serve training alone."""

from collections.abc import Callable

from torch import Tensor

from common.seeds.face import SeedFace
from methods.dig.config import DiGConfig
from methods.dig.model import DiG, without_lfca


def build(config: DiGConfig, num_classes: int) -> DiG:
    """The network."""
    return DiG(config.model, num_classes, None)


def logits_of(model: DiG) -> Callable[[Tensor], Tensor]:
    """The class tokens' logits."""
    return lambda images: model.logits(images)[0]


FACE = SeedFace(build, without_lfca, logits_of=logits_of)
