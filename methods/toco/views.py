"""The three random views of a training image: main image (global view 1), global view 2, source of the local crops.

Draws come from the global generators of torch, ``random`` and NumPy, each from the reference's own generator;
`common.run.random.draws_from` seeds all three. Images are RGB PIL images.
"""

import random
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision import transforms

from common.data.transforms import to_bytes
from methods.toco.config import ToCoViewConfig

BLUR_RADIUS = 0.1, 2.0  # pixels
SOLARISE_FROM = 128  # values from here on are inverted
AREA = 0.4, 1.0  # of global view 2, relative to the image


class Position(NamedTuple):
    """The places of an image on its padded canvas and of the crop's window, in pixels."""

    pad_top: int
    pad_left: int
    top: int
    left: int


class ToCoViews:
    """Maps a PIL image to [main, view 2, local source, box].

    The views have the pixels, uint8 (3, S, S); the box is int64 (4,): top, bottom, left and right of the part of the
    main image's crop that is not padding.
    """

    def __init__(self, config: ToCoViewConfig) -> None:
        """Composes the transforms.

        Raises:
            UserError: the views have no room for the local crops.
        """
        config.check()
        self.config = config
        flip = [] if config.paired else [transforms.RandomHorizontalFlip()]
        self._local = transforms.Compose([*flip, *_recoloured(), RandomBlur(0.5), to_bytes])
        self._main = transforms.Compose([*flip, *_recoloured(), RandomBlur(1.0), to_bytes])
        resized_crop = transforms.RandomResizedCrop(
            config.crop_size, AREA, interpolation=transforms.InterpolationMode.BICUBIC
        )
        self._second = transforms.Compose(
            [
                resized_crop, transforms.RandomHorizontalFlip(), *_recoloured(), RandomBlur(0.1), RandomSolarise(0.2),
                to_bytes,
            ]
        )  # fmt: skip

    def __call__(self, image: Image.Image) -> list[Tensor]:
        """See the class."""
        crop, box = self._crop(image)
        local = self._local(crop)
        main = self._main(crop)
        return [main, self._second(image), local, torch.tensor(box)]

    def _crop(self, image: Image.Image) -> tuple[Image.Image, list[int]]:
        """The crop that the main image and the source of local crops share, and its box."""
        size = self.config.crop_size
        scaled = rescaled(image, random.uniform(*self.config.scale))
        if random.random() < 0.5:
            scaled = ImageOps.mirror(scaled)
        crop, box = crop_at(scaled, draw_position(scaled, size), size)
        if self.config.paired and random.random() < 0.5:
            crop = ImageOps.mirror(crop)
            box = [box[0], box[1], size - box[3], size - box[2]]
        return crop, box


def rescaled(image: Image.Image, ratio: float) -> Image.Image:
    """The image with both sides multiplied by ``ratio`` and rounded down (bilinear, antialiased)."""
    width, height = (max(int(ratio * side), 1) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def draw_position(image: Image.Image, size: int) -> Position:
    """Draws a uniform place of the image on a canvas of at least size x size, and a uniform window on that canvas."""
    height, width = (max(side, size) for side in reversed(image.size))
    pad_top = int(np.random.randint(height - image.height + 1))  # noqa: NPY002 - as the reference, see the module
    pad_left = int(np.random.randint(width - image.width + 1))  # noqa: NPY002
    return Position(pad_top, pad_left, random.randrange(height - size + 1), random.randrange(width - size + 1))


def crop_at(image: Image.Image, position: Position, size: int) -> tuple[Image.Image, list[int]]:
    """The window of size x size pixels, black outside the image, and the box of the image's part in it.

    Returns:
        The crop and [top, bottom, left, right] in its pixels.
    """
    top = position.pad_top - position.top  # of the image in the window
    left = position.pad_left - position.left
    crop = image.crop((-left, -top, size - left, size - top))  # PIL fills with black
    box = [max(top, 0), min(size, top + image.height), max(left, 0), min(size, left + image.width)]
    return crop, box


class RandomBlur:
    """Blurs a PIL image with probability p by a Gaussian of random radius."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image or a blurred copy."""
        if random.random() >= self.p:
            return image
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*BLUR_RADIUS)))


class RandomSolarise:
    """Inverts the bright values of a PIL image with probability p."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image or a solarised copy."""
        return ImageOps.solarize(image, SOLARISE_FROM) if random.random() < self.p else image


def _recoloured() -> list:
    """Random colour jitter, then random loss of all colour."""
    jitter = transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    return [transforms.RandomApply([jitter], p=0.8), transforms.RandomGrayscale(p=0.2)]
