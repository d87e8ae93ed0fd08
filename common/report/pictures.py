"""Images, labels and CAMs of the page as data URIs.

A seed is stored as two lossless bytes a pixel: the number of thresholds below its largest value, and the label of that
value. So the page draws the very labels of every threshold of the evaluation's grid. CAMs of single classes, which are
only looked at, are small and lossy.
"""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.data.images import FORMATS, opened
from common.score.bins import ThresholdBins
from common.score.files import Prediction

QUALITY = 40  # of photographs
PICTURE_SIDE = 900  # longest side of a picture that a training made, in pixels
CAM_SIDE = 96  # longest side of a single class's CAM, in pixels


def photo(image: Image.Image) -> str:
    """A lossy data URI at the image's size."""
    return _uri(image.convert("RGB"), quality=QUALITY, method=4)


def small(file: Path) -> str:
    """A lossy data URI of a picture's file, at most `PICTURE_SIDE` wide and high.

    Raises:
        UserError: it is damaged.
    """
    with opened(file, "picture", FORMATS) as image:
        picture = image.convert("RGB")
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    return photo(picture)


def label_map(labels: np.ndarray) -> str:
    """A lossless data URI of labels, uint8 (H, W), in the green channel."""
    zero = np.zeros_like(labels)
    return _exact(np.stack([zero, labels, zero], axis=2))


def seed_map(seed: Mapping[int, np.ndarray], bins: ThresholdBins, shape: tuple[int, int]) -> str:
    """A lossless data URI: red the number of thresholds below the largest value, green the label of that value.

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
    return _exact(np.stack([number, label, np.zeros_like(label)], axis=2))


def cam(values: np.ndarray) -> str:
    """A small grey data URI of a CAM, values from 0 to 1."""
    grey = Image.fromarray(np.round(np.clip(values, 0, 1) * 255).astype(np.uint8))
    grey.thumbnail((CAM_SIDE, CAM_SIDE), Image.Resampling.BILINEAR)
    return _uri(grey, quality=70, method=4)


def prediction_entry(found: Prediction, bins: ThresholdBins | None, shape: tuple[int, int]) -> dict[str, Any]:
    """What the page has of one prediction: ``map``, and for seeds ``cams`` of each class."""
    if not isinstance(found, dict):
        return {"map": label_map(np.asarray(found).astype(np.uint8)), "cams": []}
    if bins is None:  # scores of a task without thresholds: background is a map of its own
        raise TypeError("maps without thresholds")
    return {
        "map": seed_map(found, bins, shape),
        "cams": [{"label": key + 1, "map": cam(found[key])} for key in sorted(found)],
    }


def _exact(pixels: np.ndarray) -> str:
    return _uri(Image.fromarray(np.ascontiguousarray(pixels)), lossless=True, quality=50, method=4)


def _uri(image: Image.Image, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, format="WEBP", **options)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
