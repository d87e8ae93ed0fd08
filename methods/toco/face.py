"""ToCo as inference sees it: a classifier that gives seeds, and a segmentation network that gives masks."""

from collections.abc import Callable

from torch import Tensor

from common.masks.face import MaskFace
from common.masks.options import SegmentConfig
from common.seeds.face import SeedFace
from methods.toco.cams import seed_maps
from methods.toco.config import ToCoConfig
from methods.toco.model import ToCo


def build(config: ToCoConfig, num_classes: int) -> ToCo:
    """The network, which is one for both."""
    return ToCo(config.model, num_classes)


def logits_of(model: ToCo) -> Callable[[Tensor], Tensor]:
    """The classifier's logits."""
    return lambda images: model.logits(model.encoder(images))[0]


def segment(model: ToCo, config: ToCoConfig) -> Callable[[Tensor], Tensor]:
    """The segmentation's logits."""
    return model.segment


def section(config: ToCoConfig) -> SegmentConfig:
    """The configuration of masks."""
    return config.infer.segment


SEED_FACE = SeedFace(build, maps_of=seed_maps, logits_of=logits_of)
FACE = MaskFace(build, segment, section)
