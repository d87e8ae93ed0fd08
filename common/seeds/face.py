"""A classifier as inference sees it: each method has one, which its own scripts and `scripts/predict.py` use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from common.nets.vit import ClassMaps
from common.seeds.cam import SeedMaker
from common.seeds.infer import MapsOf, view_maps
from common.seeds.options import ClassTokenInferConfig


class ClassTokenNetwork(Protocol):
    """A network whose class tokens give CAMs."""

    def foreground_maps(self, kind: str) -> Callable[[Tensor], ClassMaps]:
        """Function of images (b, 3, H, W) that gives CAMs (b, C, h, w) of a kind of `common.nets.options.SEED_MAPS`,
        and class logits (b, C).
        """


def foreground_maps(model: ClassTokenNetwork, config: ClassTokenInferConfig) -> SeedMaker:
    """Seeds of a network with class tokens: its `foreground_maps` over the views of the configuration."""
    return view_maps(model.foreground_maps(config.seed_map), config)


@dataclass(frozen=True)
class SeedFace:
    """The functions of a classifier.

    Attributes:
        build: makes the network of a configuration for a number of classes.
        needed: picks from a checkpoint what the network has, where trainings save more.
        maps_of: gives the function that makes seeds, from the network and the section ``infer``.
        logits_of: gives the function from images (b, 3, H, W) to class logits (b, C), from the network; None: the
            network does not see whole images.
    """

    build: Callable[[Any, int], nn.Module]
    needed: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda state: state
    maps_of: Callable[[Any, Any], MapsOf] = foreground_maps
    logits_of: Callable[[Any], Callable[[Tensor], Tensor]] | None = None
