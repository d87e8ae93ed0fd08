"""The toy as inference sees it."""

from common.seeds.cam import SeedMaker
from common.seeds.face import SeedFace
from common.seeds.infer import view_maps
from common.seeds.options import InferConfig
from tests.toy_method.config import ToyConfig
from tests.toy_method.model import Toy


def build(config: ToyConfig, num_classes: int) -> Toy:
    """The network."""
    return Toy(config.model, num_classes)


def maps_of(model: Toy, config: InferConfig) -> SeedMaker:
    """Seeds over flips and scales."""
    return view_maps(model.foreground_maps, config)


FACE = SeedFace(build, maps_of=maps_of)
