"""Configuration sections of seed inference. Imports no PyTorch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.data.seeds import FORMATS
from common.nets.options import SEED_MAPS
from common.run.config import Rule, at_least, between, option, some

if TYPE_CHECKING:
    from common.data.whole import Transform

SCALES = Rule("one or more numbers above 0", lambda scales: bool(scales) and min(scales) > 0)

TILE = Rule("0 or at least 32", lambda side: side == 0 or side >= 32)
TILE_HELP = (
    "Side of the tiles that images with a longer side are cut into, in pixels, which bounds the memory; 0: none is "
    "cut, but by scripts/predict.py, which takes 64 patches."
)
OVERLAP = 0.25
OVERLAP_HELP = "Share of a tile, at least, over which it is blended with the next one."


def tile_settings(tile: int, overlap: float) -> dict[str, Any]:
    """The settings of tiles, for stamps; none where no image is cut, as in folders of earlier versions."""
    return {"tile": tile, "overlap": overlap} if tile else {}


@dataclass
class InferConfig:
    """Seed inference."""

    image_list: str = option("train_aug", "Images to write seeds for.", flag="--val_list")
    eval_list: str = option("train", "Images whose seeds are scored at the end, if they have true masks; empty: none.")
    scales: list[float] = option([1.0], "Image scales whose CAMs are summed.", rule=SCALES)
    flip: bool = option(True, "Whether the mirror image's CAMs are added.")
    batch_size: int = option(4, "Images of one size that go through the network together.", rule=at_least(1))
    tile: int = option(0, TILE_HELP, rule=TILE)
    overlap: float = option(OVERLAP, OVERLAP_HELP, rule=between(0, 0.5))
    format: str = option("npy", "Seed files: npy as the papers' tools read it, or the compact npz.", choices=FORMATS)
    crf_alphas: list[int] = option(
        [6, 10, 24], "Background exponents of --crf, one folder each.", flag="--alphas", rule=some(between(0, 99))
    )
    num_workers: int = option(
        4, "Image-loader worker processes; also the processes of --crf.", flag="--num_workers", rule=at_least(0)
    )
    vis_limit: int = option(200, "Largest number of pictures of --vis.", rule=at_least(0))

    def settings(self) -> dict[str, Any]:
        """All keys that the seeds of a network depend on; in the stamp, so that two inferences are not mixed."""
        views = {"scales": list(self.scales), "flip": self.flip, "format": self.format, "batch_size": self.batch_size}
        return {**views, **tile_settings(self.tile, self.overlap)}

    def transform(self) -> "Transform":
        """Turns a decoded image into the input of a method's `MapsOf`: here the normalised pixels."""
        from common.data.transforms import eval_transform

        return eval_transform


@dataclass
class ClassTokenInferConfig(InferConfig):
    """Seed inference of networks with class tokens."""

    seed_map: str = option(
        "rcams",
        "Map that becomes the seed: rcams (refined by patch affinity), fcams (attention x CAM) or cams.",
        choices=SEED_MAPS,
    )

    def settings(self) -> dict[str, Any]:
        """As `InferConfig.settings`."""
        return {**super().settings(), "seed_map": self.seed_map}
