"""A segmentation network as inference sees it: each has one, which its own scripts and `scripts/predict.py` use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from common.data.transforms import eval_transform
from common.data.whole import Transform
from common.masks.options import SegmentConfig


def infer_section(config: Any) -> SegmentConfig:
    """The section ``infer`` of a configuration."""
    return config.infer


@dataclass(frozen=True)
class MaskFace:
    """The functions of a segmentation network; each takes the whole configuration.

    Attributes:
        build: makes the network for a number of classes, background aside.
        logits_of: gives the function from images (b, 3, H, W) to logits (b, C + 1, h, w), background first.
        section: gives the configuration of masks.
        needed: picks from a checkpoint what the network has.
        transform: gives the function from a decoded RGB image to network input of the same size.
    """

    build: Callable[[Any, int], nn.Module]
    logits_of: Callable[[Any, Any], Callable[[Tensor], Tensor]]
    section: Callable[[Any], SegmentConfig] = infer_section
    needed: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda state: state
    transform: Callable[[Any], Transform] = lambda config: eval_transform
