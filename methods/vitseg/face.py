"""The ViT segmenter as inference sees it."""

from collections.abc import Callable

from torch import Tensor

from common.data.whole import Transform
from common.masks.face import MaskFace
from common.masks.views import input_transform
from methods.vitseg.config import VitSegConfig
from methods.vitseg.model import VitSeg, logits_function


def build(config: VitSegConfig, num_classes: int) -> VitSeg:
    """The network."""
    return VitSeg(config.model, num_classes + 1)


def segment(model: VitSeg, config: VitSegConfig) -> Callable[[Tensor], Tensor]:
    """The segmentation's logits, of whole images or of windows."""
    return logits_function(model, config.infer)


def transform(config: VitSegConfig) -> Transform:
    """The input in the form of the backbone's weights."""
    return input_transform(config.views.input)


FACE = MaskFace(build, segment, transform=transform)
