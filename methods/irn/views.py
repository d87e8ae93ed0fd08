"""IRN's training view: the random view of an image and its label map.

Reference: voc12/dataloader.py. Draws come from Python's ``random`` in the reference's order; `draws_from` seeds it.
"""

import random

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from common.data.classes import IGNORE_LABEL
from common.data.crops import draw_place, normalised_crop
from methods.irn.config import STRIDE, IRNViewConfig


class IRNViews:
    """Maps a PIL image and its labels, uint8 (H, W), to [image, labels] at random scale, flip and place.

    The image is float32 (3, S, S), ImageNet-normalised, 0 beyond its border; the labels are uint8 (S/4, S/4), 255
    beyond it.
    """

    def __init__(self, config: IRNViewConfig) -> None:
        self.config = config

    def __call__(self, loaded: tuple[Image.Image, np.ndarray]) -> list[Tensor]:
        """See the class."""
        image, labels = rescaled(*loaded, random.uniform(*self.config.scale))
        if random.getrandbits(1):
            image = ImageOps.mirror(image)
            labels = labels[:, ::-1]
        size = self.config.crop_size
        columns = draw_place(image.width, size)
        rows = draw_place(image.height, size)
        target = np.full((size, size), IGNORE_LABEL, dtype=np.uint8)
        target[rows.on_canvas, columns.on_canvas] = labels[rows.on_source, columns.on_source]
        return [normalised_crop(image, columns, rows, size), torch.from_numpy(reduced(target))]


def rescaled(image: Image.Image, labels: np.ndarray, factor: float) -> tuple[Image.Image, np.ndarray]:
    """Both scaled: the image bicubic, the labels by the nearest pixel; sides are rounded (halves to even)."""
    size = max(round(image.width * factor), 1), max(round(image.height * factor), 1)
    resized = Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)
    return image.resize(size, Image.Resampling.BICUBIC), np.asarray(resized)


def reduced(labels: np.ndarray) -> np.ndarray:
    """Labels (S/4, S/4) of (S, S): of every 4 x 4 pixels the third in both directions (reference: PIL's nearest)."""
    return np.ascontiguousarray(labels[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE])
