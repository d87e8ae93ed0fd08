"""Images, labels and CAMs of the page as bytes of small pictures (WebP).

A seed is stored without loss as two numbers a pixel: the number of thresholds below its largest value, and the label of
that value. So the page draws the very labels of every threshold of the evaluation's grid. Numbers are stored as
differences from their neighbours, which are small. Photographs and the CAMs of single classes, which are only looked
at, are lossy.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.data.images import FORMATS, opened
from common.score.bins import ThresholdBins
from common.score.files import Prediction

QUALITY = 30  # of photographs
PICTURE_SIDE = 900  # longest side of a picture that a training made, in pixels
CAM_SIDE = 64  # longest side of a single class's CAM, in pixels


def photo(image: Image.Image) -> bytes:
    """A lossy picture of the image's size."""
    return _webp(image.convert("RGB"), quality=QUALITY, method=6)


def small(file: Path) -> bytes:
    """A lossy picture of a file's, at most `PICTURE_SIDE` wide and high.

    Raises:
        UserError: it is damaged.
    """
    with opened(file, "picture", FORMATS) as image:
        picture = image.convert("RGB")
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    return _webp(picture, quality=60, method=4)


def plane(values: np.ndarray) -> bytes:
    """A lossless picture of whole numbers, uint8 (H, W), in the green channel."""
    zero = np.zeros_like(values)
    return _webp(Image.fromarray(np.stack([zero, values, zero], axis=2)), lossless=True, quality=75, method=4)


def smooth_plane(values: np.ndarray) -> bytes:
    """As `plane`, for numbers that are like their neighbours': each less those before it, modulo 256."""
    across_rows = np.diff(values, axis=0, prepend=np.uint8(0))
    return plane(np.diff(across_rows, axis=1, prepend=np.uint8(0)))


def seed_planes(seed: Mapping[int, np.ndarray], bins: ThresholdBins, shape: tuple[int, int]) -> dict[str, bytes]:
    """``number``, the number of thresholds below the largest value, and ``label``, the label of that value.

    Args:
        seed: {foreground class index: float32 (H, W)}; the lower class wins a tie.
    """
    largest = np.full(shape, -np.inf, dtype=np.float32)
    label = np.zeros(shape, dtype=np.uint8)
    for key in sorted(seed):
        is_better = seed[key] > largest
        largest = np.where(is_better, seed[key], largest)
        label[is_better] = key + 1
    number = bins(np.maximum(largest, np.float32(-1))).astype(np.uint8)
    label[number == 0] = 0  # never above a threshold: compresses better
    return {"number": smooth_plane(number), "label": plane(label)}


def cam(values: np.ndarray) -> bytes:
    """A small grey picture of a CAM, values from 0 to 1."""
    grey = Image.fromarray(np.round(np.clip(values, 0, 1) * 255).astype(np.uint8))
    grey.thumbnail((CAM_SIDE, CAM_SIDE), Image.Resampling.BILINEAR)
    return _webp(grey, quality=70, method=4)


def prediction_entry(found: Prediction, bins: ThresholdBins | None, shape: tuple[int, int]) -> dict[str, Any]:
    """What the page has of one prediction: its planes, and for seeds ``cams`` of each class."""
    if not isinstance(found, dict):
        return {"label": plane(np.asarray(found).astype(np.uint8)), "cams": []}
    if bins is None:  # scores of a task without thresholds: background is a map of its own
        raise TypeError("maps without thresholds")
    cams = [{"label": key + 1, "map": cam(found[key])} for key in sorted(found)]
    return {**seed_planes(found, bins, shape), "cams": cams}


def _webp(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format="WEBP", **options)
    return file.getvalue()
