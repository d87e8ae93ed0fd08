"""Configuration section of training views, and what a training's batch must be. Imports no PyTorch."""

from dataclasses import dataclass

from common.run.config import ABOVE_ZERO, option, pair
from common.run.errors import UserError


@dataclass
class ViewConfig:
    """The random view of a training image."""

    scale: list[float] = option(
        [0.6, 1.2], "Area range of the crop, relative to the image.", flag="--scale", rule=pair(ABOVE_ZERO)
    )
    interpolation: str = option(
        "bicubic", "Resampling of the crop.", flag="--train-interpolation", choices=("bicubic", "bilinear")
    )
    auto_augment: str = option(
        "rand-m9-mstd0.5-inc1", "timm's RandAugment, such as rand-m9-mstd0.5-inc1; empty for none.", flag="--aa"
    )


def check_batch(global_batch: int, world: int, accumulation: int) -> None:
    """Checks a global batch.

    Raises:
        UserError: it does not divide into the parts of ``world`` processes and ``accumulation`` micro-batches.
    """
    if global_batch % (world * accumulation):
        raise UserError(
            f"train.batch_size={global_batch} is the global batch; it does not divide by {world} process(es) x "
            f"{accumulation} accumulation step(s). Choose a multiple of {world * accumulation}."
        )
