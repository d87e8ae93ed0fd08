"""Random training views: the crops of DeiT, through timm, and the flipped squares of generative models."""

from collections.abc import Callable

import torch
from PIL import Image
from timm.data import auto_augment as timm_auto_augment
from timm.data import create_transform
from timm.data.auto_augment import RandAugment
from timm.data.transforms import MaybeToTensor
from torchvision import transforms

from common.data.transforms import to_bytes


class SeparateViews:
    """Random views of an image, each by a transform of its own."""

    def __init__(self, *transforms: Callable[[Image.Image], torch.Tensor]) -> None:
        self.transforms = transforms

    def __call__(self, image: Image.Image) -> list[torch.Tensor]:
        return [transform(image) for transform in self.transforms]


def train_transform(
    size: int, scale: list[float], interpolation: str = "bicubic", auto_augment: str = ""
) -> transforms.Compose:
    """Random resized crop, horizontal flip, optional RandAugment: the pixels, uint8 (3, size, size).

    The trainer normalises them, on the device: a worker that does spends a quarter of its time on it.

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
    steps = [step for step in transform.transforms if not isinstance(step, (MaybeToTensor, transforms.Normalize))]
    for step in steps:
        if isinstance(step, RandAugment):
            _repair_posterize(step)
    return transforms.Compose([*steps, to_bytes])


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
