"""Image transforms: the training crops of DeiT (through timm) and the plain evaluation input."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from timm.data import auto_augment as timm_auto_augment
from timm.data.auto_augment import RandAugment
from torchvision import transforms

from common.run.config import numbers, option

MEAN = torch.tensor(IMAGENET_DEFAULT_MEAN).view(3, 1, 1)
STD = torch.tensor(IMAGENET_DEFAULT_STD).view(3, 1, 1)


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


class SeparateViews:
    """Random views of an image, each by a transform of its own."""

    def __init__(self, *transforms: Callable[[Image.Image], torch.Tensor]) -> None:
        self.transforms = transforms

    def __call__(self, image: Image.Image) -> list[torch.Tensor]:
        return [transform(image) for transform in self.transforms]


def train_transform(
    size: int, scale: list[float], interpolation: str = "bicubic", auto_augment: str = ""
) -> transforms.Compose:
    """Random resized crop, horizontal flip, optional RandAugment, ImageNet normalisation: float32 (3, size, size).

    Args:
        scale: Smallest and largest area of the crop, relative to the image. Above 1 is allowed: crops that do not fit
            are drawn again, ten times at most, then the largest central crop is taken.
        auto_augment: timm's description, such as ``rand-m9-mstd0.5-inc1``; empty for none.
    """
    # color_jitter=None: timm would otherwise add its default jitter when there is no RandAugment.
    transform = create_transform(
        size, is_training=True, scale=(scale[0], scale[1]), ratio=(3 / 4, 4 / 3), interpolation=interpolation,
        color_jitter=None,  # type: ignore[arg-type]  # timm takes None, though its annotation does not
        auto_augment=auto_augment or None, re_prob=0.0,
    )  # fmt: skip
    for step in transform.transforms:
        if isinstance(step, RandAugment):
            _repair_posterize(step)
    return transform


def _repair_posterize(augment: RandAugment) -> None:
    """Magnitude 10 of "PosterizeIncreasing" keeps 0 bits: black in older Pillow, an exception in current Pillow."""
    for op in augment.ops:
        if op.aug_fn is timm_auto_augment.posterize:
            op.aug_fn = posterize


def posterize(image: Image.Image, bits_to_keep: int, **unused: object) -> Image.Image:
    """timm's posterize that also keeps 0 bits, which gives a black image."""
    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    return timm_auto_augment.posterize(image, bits_to_keep)


def short_side(size: int) -> transforms.Resize:
    """Brings the shorter side of an image to ``size`` pixels (bilinear, antialiased), unless it has that size."""
    return transforms.Resize(size, transforms.InterpolationMode.BILINEAR)


def square_view(size: int, flip: float = 0.5) -> transforms.Compose:
    """The training view of generative models: float32 (3, size, size) in [0, 1].

    Shorter side to ``size``, random horizontal flip, central crop.

    Args:
        flip: probability of the flip.
    """
    return transforms.Compose(
        [short_side(size), transforms.RandomHorizontalFlip(flip), transforms.CenterCrop(size), transforms.ToTensor()]
    )


def eval_transform(image: Image.Image) -> torch.Tensor:
    """The whole image, ImageNet-normalised: float32 (3, H, W)."""
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))  # H W 3
    return pixels.permute(2, 0, 1).float().div_(255).sub_(MEAN).div_(STD)


def square_transform(image: Image.Image, size: int) -> torch.Tensor:
    """The whole image brought to size x size whatever its aspect (bilinear, antialiased), ImageNet-normalised."""
    return eval_transform(image.resize((size, size), Image.Resampling.BILINEAR))
