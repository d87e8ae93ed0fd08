"""DeepLab as inference sees it."""

from collections.abc import Callable

from torch import Tensor

from common.data.whole import Transform
from common.masks.face import MaskFace
from common.masks.views import input_transform
from methods.deeplab.config import DeepLabConfig
from methods.deeplab.model import DeepLab
from methods.deeplab.weights import released


def build(config: DeepLabConfig, num_classes: int) -> DeepLab:
    """The network."""
    return DeepLab(config.model, num_classes + 1)


def segment(model: DeepLab, config: DeepLabConfig) -> Callable[[Tensor], Tensor]:
    """The segmentation's logits."""
    return model


def transform(config: DeepLabConfig) -> Transform:
    """The input in the form of the first weights."""
    return input_transform(config.views.input)


FACE = MaskFace(build, segment, needed=released, transform=transform)
