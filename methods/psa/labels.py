"""AffinityNet's training data: views of an image, and labels of its cells by two CRF scores.

Symbols: K classes of the image; scores are marginals (K + 1, H, W), background first. Those of a low exponent have much
background, so that their foreground is reliable; those of a high exponent have reliable background.
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
from common.data.transforms import eval_transform
from methods.psa.config import ViewsConfig
from methods.psa.scores import Scores

UNSCORED = 1e-5  # a cell outside the image has no score at all


class Placement(NamedTuple):
    """A random crop: along each axis an offset into the image, or of it in the crop where it is smaller; a flip."""

    left: int
    top: int
    mirrored: bool


class AffinityViews:
    """Maps an image and its scores to the same random view of both: colour jitter, crop, flip.

    Draws come in the reference's order (tool/imutils.py): jitter from torch's generator, crop and flip from Python's.
    """

    def __init__(self, config: ViewsConfig, stride: int) -> None:
        self.crop = config.crop
        self.stride = stride
        self.jitter = ColorJitter(*config.jitter)

    def __call__(self, sample: tuple[Image.Image, Scores]) -> list[Tensor]:
        """The normalised image, float32 (3, S, S), and the labels of its cells, uint8 (S / stride, S / stride)."""
        image, scores = sample
        pixels = np.array(self.jitter(image))
        place = draw_placement(image.height, image.width, self.crop)
        view = placed(pixels.transpose(2, 0, 1), place, self.crop).transpose(1, 2, 0)
        low, high = (mean_pooled(placed(maps, place, self.crop), self.stride) for maps in scores)
        return [eval_transform(Image.fromarray(view)), torch.from_numpy(cell_labels(low, high))]


def draw_placement(height: int, width: int, crop: int) -> Placement:
    """Draws a crop of ``crop`` x ``crop`` pixels."""
    left, top = (draw_offset(side, crop) for side in (width, height))
    return Placement(left, top, bool(random.getrandbits(1)))


def placed(maps: np.ndarray, place: Placement, crop: int) -> np.ndarray:
    """The crop (c, crop, crop) of maps (c, H, W); zero outside the image."""
    height, width = maps.shape[1:]
    rows = place_at(height, crop, place.top)
    columns = place_at(width, crop, place.left)
    result = np.zeros((len(maps), crop, crop), dtype=maps.dtype)
    result[:, rows.on_canvas, columns.on_canvas] = maps[:, rows.on_source, columns.on_source]
    return np.ascontiguousarray(result[..., ::-1]) if place.mirrored else result


def mean_pooled(maps: np.ndarray, stride: int) -> np.ndarray:
    """Means of maps (c, S, S) over cells of stride x stride pixels: (c, S / stride, S / stride)."""
    count, height, width = maps.shape
    return maps.reshape(count, height // stride, stride, width // stride, stride).mean(axis=(2, 4))


def cell_labels(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Labels of cells by their mean scores (reference: voc12/data.py, VOC12AffDataset).

    Args:
        low: mean scores of the low exponent (K + 1, h, w), and ``high`` those of the high one.

    Returns:
        uint8 (h, w): 0 where background has the largest high score; else the class, numbered within the image from 1,
        that has the largest low score; 255 where that is background, or nothing was scored.
    """
    labels = low.argmax(axis=0).astype(np.uint8)
    labels[labels == 0] = IGNORE_LABEL
    labels[high.argmax(axis=0) == 0] = 0
    labels[np.maximum(low.max(axis=0), high.max(axis=0)) < UNSCORED] = IGNORE_LABEL
    return labels
