"""AffinityNet's training data: a random view of an image, and targets for its cells from the marginals of two CRFs.

Symbols: n classes of the image; marginals are (n + 1, H, W), background first. A low exponent gives much background, so
its foreground is reliable; a high exponent gives little, so its background is.
"""

import random
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import ColorJitter

from common.data.classes import IGNORE_LABEL
from common.data.crops import draw_offset, place_at
from methods.psa.config import PSAViewConfig
from methods.psa.marginals import Marginals

OUTSIDE = 1e-5  # marginals sum to 1 inside the image; a cell outside has none


class Placement(NamedTuple):
    """The draws of one view.

    Attributes:
        left: horizontal offset in pixels, of the crop in the image; of the image in the crop where it is smaller.
        top: vertical offset, likewise.
        mirrored: whether the crop is mirrored.
    """

    left: int
    top: int
    mirrored: bool


class PSAViews:
    """Maps an image and its marginals to the same random view of both: colour jitter, crop, flip.

    Draws come in the reference's order (tool/imutils.py): jitter from torch's generator, crop and flip from Python's.
    """

    def __init__(self, config: PSAViewConfig, stride: int) -> None:
        self.crop_size = config.crop_size
        self.stride = stride
        self.jitter = ColorJitter(*config.jitter)

    def __call__(self, loaded: tuple[Image.Image, Marginals]) -> list[Tensor]:
        """The pixels, uint8 (3, S, S), and the targets of their cells, uint8 (S / stride, S / stride)."""
        image, marginals = loaded
        pixels = np.array(self.jitter(image))
        place = draw_placement(image.height, image.width, self.crop_size)
        view = placed(pixels.transpose(2, 0, 1), place, self.crop_size)
        low, high = (mean_pooled(placed(maps, place, self.crop_size), self.stride) for maps in marginals)
        return [torch.from_numpy(view), torch.from_numpy(cell_targets(low, high))]


def draw_placement(height: int, width: int, crop_size: int) -> Placement:
    """Draws the crop of an image."""
    left, top = (draw_offset(side, crop_size) for side in (width, height))
    return Placement(left, top, bool(random.getrandbits(1)))


def placed(maps: np.ndarray, place: Placement, crop_size: int) -> np.ndarray:
    """The crop (c, S, S) of maps (c, H, W); zero outside the image."""
    height, width = maps.shape[1:]
    rows = place_at(height, crop_size, place.top)
    columns = place_at(width, crop_size, place.left)
    result = np.zeros((len(maps), crop_size, crop_size), dtype=maps.dtype)
    result[:, rows.on_canvas, columns.on_canvas] = maps[:, rows.on_source, columns.on_source]
    return np.ascontiguousarray(result[..., ::-1]) if place.mirrored else result


def mean_pooled(maps: np.ndarray, stride: int) -> np.ndarray:
    """Means of maps (c, S, S) over cells of stride x stride pixels: (c, S / stride, S / stride)."""
    count, height, width = maps.shape
    return maps.reshape(count, height // stride, stride, width // stride, stride).mean(axis=(2, 4))


def cell_targets(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Targets of cells by their mean marginals (reference: voc12/data.py, VOC12AffDataset).

    Args:
        low: mean marginals of the low exponent (n + 1, h, w).
        high: mean marginals of the high exponent, of the same shape.

    Returns:
        uint8 (h, w): 0 where background is largest in ``high``; else the class, numbered within the image from 1, that
        is largest in ``low``; 255 where background is largest there, and outside the image.
    """
    targets = low.argmax(axis=0).astype(np.uint8)
    targets[targets == 0] = IGNORE_LABEL
    targets[high.argmax(axis=0) == 0] = 0
    targets[np.maximum(low.max(axis=0), high.max(axis=0)) < OUTSIDE] = IGNORE_LABEL
    return targets
