"""The random view of an image that CRT's classifier is trained on.

Reference: voc12/dataloader.py, misc/imutils.py. Draws come from Python's ``random`` in the reference's order;
`common.run.random.draws_from` seeds it.
"""

import random
from typing import NamedTuple

from PIL import Image, ImageOps
from torch import Tensor

from common.data.crops import Place, draw_place, placed_pixels
from methods.crt.config import CRTViewConfig


class View(NamedTuple):
    """The draws of one view.

    Attributes:
        size: (h, w) to which the image is brought.
        flip: whether it is mirrored then.
        columns: horizontal place of the mirrored image on the crop.
        rows: vertical place.
    """

    size: tuple[int, int]
    flip: bool
    columns: Place
    rows: Place


def draw_view(height: int, width: int, config: CRTViewConfig) -> View:
    """Draws the view of an image of that size: long side, flip, horizontal and vertical place."""
    factor = random.randint(*config.long_side) / max(height, width)
    size = max(round(height * factor), 1), max(round(width * factor), 1)  # halves to even
    flip = bool(random.getrandbits(1))
    columns = draw_place(size[1], config.crop_size)
    return View(size, flip, columns, draw_place(size[0], config.crop_size))


class CRTViews:
    """Maps a PIL image to its one view: randomly scaled, flipped and placed.

    The view has the pixels, and 255 where the image is: uint8 (4, S, S). Normalised it is 0 outside the image.
    """

    def __init__(self, config: CRTViewConfig) -> None:
        self.config = config

    def __call__(self, image: Image.Image) -> list[Tensor]:
        """See the class."""
        view = draw_view(image.height, image.width, self.config)
        image = image.resize(view.size[::-1], Image.Resampling.BICUBIC)
        if view.flip:
            image = ImageOps.mirror(image)
        return [placed_pixels(image, view.columns, view.rows, self.config.crop_size)]
