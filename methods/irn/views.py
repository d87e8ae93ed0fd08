"""IRN's training view: the random view of an image and its label map.

Reference: voc12/dataloader.py. Draws come from Python's ``random`` in the reference's order;
`common.run.random.draws_from` seeds it.
"""

import random

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from common.data.classes import IGNORE_LABEL
from common.data.crops import draw_place, placed_pixels
from methods.irn.config import STRIDE, IRNViewConfig


class IRNViews:
    """Maps a PIL image and its label map, uint8 (H, W), to [image, targets]: randomly scaled, flipped and placed.

    The image has the pixels, and 255 where the original is: uint8 (4, S, S); normalised it is 0 elsewhere. The targets
    are uint8 (S/4, S/4), 255 outside the original.
    """

    def __init__(self, config: IRNViewConfig) -> None:
        self.config = config

    def __call__(self, loaded: tuple[Image.Image, np.ndarray]) -> list[Tensor]:
        """See the class."""
        image, label_map = rescaled(*loaded, random.uniform(*self.config.scale))
        if random.getrandbits(1):
            image = ImageOps.mirror(image)
            label_map = label_map[:, ::-1]
        size = self.config.crop_size
        columns = draw_place(image.width, size)
        rows = draw_place(image.height, size)
        target = np.full((size, size), IGNORE_LABEL, dtype=np.uint8)
        target[rows.on_canvas, columns.on_canvas] = label_map[rows.on_source, columns.on_source]
        return [placed_pixels(image, columns, rows, size), torch.from_numpy(reduced(target))]


def rescaled(image: Image.Image, label_map: np.ndarray, factor: float) -> tuple[Image.Image, np.ndarray]:
    """Scales the image (bicubic) and the label map (nearest pixel); sides are rounded, halves to even numbers."""
    size = max(round(image.width * factor), 1), max(round(image.height * factor), 1)
    resized = Image.fromarray(label_map).resize(size, Image.Resampling.NEAREST)
    return image.resize(size, Image.Resampling.BICUBIC), np.asarray(resized)


def reduced(label_map: np.ndarray) -> np.ndarray:
    """Reduces a label map (S, S) to (S/4, S/4): every third of four pixels, both ways (reference: PIL's nearest)."""
    return np.ascontiguousarray(label_map[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE])
