"""Configuration section of training views. Imports no PyTorch."""

from dataclasses import dataclass

from common.run.config import numbers, option


@dataclass
class ViewConfig:
    """The random view of a training image."""

    scale: list[float] = option(
        [0.6, 1.2], "Area range of the crop, relative to the image.", flag="--scale", rule=numbers(2)
    )
    interpolation: str = option(
        "bicubic", "Resampling of the crop.", flag="--train-interpolation", choices=("bicubic", "bilinear")
    )
    auto_augment: str = option(
        "rand-m9-mstd0.5-inc1", "timm's RandAugment, such as rand-m9-mstd0.5-inc1; empty for none.", flag="--aa"
    )
