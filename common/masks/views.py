"""Inputs of segmentation networks: whole images, and random crops with their masks.

Draws come from Python's ``random`` in DeepLab's order; `common.run.random.draws_from` seeds it.
"""

import functools
import random
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.data.classes import IGNORE_LABEL
from common.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from common.masks.options import CAFFE_MEAN_BGR, MaskViewConfig


class InputForm(NamedTuple):
    """Order of the channels, and the mean and standard deviation of pixels 0 ... 255: float32 (3,)."""

    order: slice
    mean: np.ndarray
    std: np.ndarray


INPUTS = {
    "caffe": InputForm(np.s_[::-1], np.array(CAFFE_MEAN_BGR, np.float32), np.ones(3, np.float32)),
    "imagenet": InputForm(
        np.s_[:], 255 * np.array(IMAGENET_MEAN, np.float32), 255 * np.array(IMAGENET_STD, np.float32)
    ),
}


class Crop(NamedTuple):
    """The draws of one view.

    Attributes:
        scale: of the image.
        size: (h, w) of the scaled image.
        start: (row, column) of the crop, after the image is padded to the crop's size.
        flip: whether it is mirrored.
    """

    scale: float
    size: tuple[int, int]
    start: tuple[int, int]
    flip: bool


def draw_crop(height: int, width: int, config: MaskViewConfig) -> Crop:
    """Draws the view of an image."""
    scale = random.choice(config.scales)
    size = max(int(height * scale), 1), max(int(width * scale), 1)
    row, column = (random.randint(0, max(length - config.crop_size, 0)) for length in size)
    return Crop(scale, size, (row, column), random.random() < 0.5)


class MaskViews:
    """Maps a PIL image and its mask, uint8 (H, W), to a random crop: [float32 (3, S, S), uint8 (S, S)]."""

    def __init__(self, config: MaskViewConfig) -> None:
        self.config = config
        self.form = INPUTS[config.input]

    def __call__(self, loaded: tuple[Image.Image, np.ndarray]) -> list[Tensor]:
        """See the class."""
        image, mask = loaded
        return self.crop(np.asarray(image), mask, draw_crop(image.height, image.width, self.config))

    def crop(self, pixels: np.ndarray, mask: np.ndarray, crop: Crop) -> list[Tensor]:
        """The view of RGB pixels (H, W, 3) and a mask (H, W) by given draws.

        At the right and bottom the image is padded with the mean, the mask with 255.
        """
        side = self.config.crop_size
        height, width = crop.size
        pixels = pixels[..., self.form.order].astype(np.float32)
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        mask = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
        border = 0, max(side - height, 0), 0, max(side - width, 0), cv2.BORDER_CONSTANT
        pixels = cv2.copyMakeBorder(pixels, *border, value=self.form.mean.tolist())
        mask = cv2.copyMakeBorder(mask, *border, value=IGNORE_LABEL)
        window = tuple(slice(first, first + side) for first in crop.start)
        pixels = pixels[window]
        mask = mask[window]
        if crop.flip:
            pixels = pixels[:, ::-1]
            mask = mask[:, ::-1]
        return [_normalised(pixels, self.form), torch.from_numpy(np.ascontiguousarray(mask))]


def input_transform(name: str) -> Callable[[Image.Image], Tensor]:
    """Maps a whole image, by a key of `INPUTS`, to float32 (3, H, W)."""
    return functools.partial(_whole, form=INPUTS[name])


def _whole(image: Image.Image, form: InputForm) -> Tensor:
    return _normalised(np.asarray(image)[..., form.order].astype(np.float32), form)


def _normalised(pixels: np.ndarray, form: InputForm) -> Tensor:
    """H W 3, 0 ... 255 -> float32 (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(((pixels - form.mean) / form.std).transpose(2, 0, 1)))
