"""The place of an image on a crop of fixed size: a longer side is cut, a shorter side lies anywhere on the crop.

Reference: random_crop of IRNet's misc/imutils.py and of PSA's tool/imutils.py. Draws come from Python's ``random``, one
for each axis, in the order of the method.
"""

import random
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from common.data.transforms import to_bytes


@dataclass(frozen=True)
class Place:
    """The place of an image on a crop, along one axis; pixels.

    Attributes:
        canvas: the image's first pixel on the crop.
        source: the crop's first pixel on the image.
        length: of the visible part.
    """

    canvas: int
    source: int
    length: int

    @property
    def on_canvas(self) -> slice:
        """The part of the crop that the image covers."""
        return slice(self.canvas, self.canvas + self.length)

    @property
    def on_source(self) -> slice:
        """The visible part of the image."""
        return slice(self.source, self.source + self.length)


def draw_offset(side: int, size: int) -> int:
    """Draws a uniform offset of a crop within a longer side, or of a shorter side within the crop.

    It is drawn where both are equal, too.
    """
    return random.randrange(abs(side - size) + 1)


def place_at(side: int, size: int, offset: int) -> Place:
    """The place that belongs to an offset of `draw_offset`."""
    return Place(0, offset, size) if side >= size else Place(offset, 0, side)


def draw_place(side: int, size: int) -> Place:
    """Draws a uniform place."""
    return place_at(side, size, draw_offset(side, size))


def placed_pixels(image: Image.Image, columns: Place, rows: Place, size: int) -> Tensor:
    """The crop's pixels, and 255 where the image is: uint8 (4, S, S), 0 outside the image; see `normalised`."""
    part = image.crop((columns.source, rows.source, columns.source + columns.length, rows.source + rows.length))
    crop = torch.zeros(4, size, size, dtype=torch.uint8)
    crop[:3, rows.on_canvas, columns.on_canvas] = to_bytes(part)
    crop[3, rows.on_canvas, columns.on_canvas] = 255
    return crop
