"""CRT as inference sees it: the DeiT alone."""

from common.seeds.face import SeedFace
from methods.crt.cams import seed_maps
from methods.crt.config import CRTConfig
from methods.crt.model import DeiTBranch, released_deit, tiled_deit


def build(config: CRTConfig, num_classes: int) -> DeiTBranch:
    """The network."""
    return tiled_deit(config.model, num_classes)


FACE = SeedFace(build, released_deit, seed_maps)
