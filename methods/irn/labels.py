"""Label maps for IRN's training: seeds cut at a strict and a loose threshold, each snapped to edges by a dense CRF.

A pixel has a class if the strict cut has it, is background if even the loose cut has no class, and is else ignored
(IRNet section 4.2; reference: step/cam_to_ir_label.py).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from common.crf.dense import dense_crf
from common.data.classes import IGNORE_LABEL
from common.data.images import ImageFile
from common.data.masks import write_mask
from common.data.thresholds import calibrated
from common.masks.from_seeds import NONE, read_maps
from common.run.errors import UserError
from methods.irn.config import LabelConfig


def cut(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Cuts maps (n, H, W) to uint8 (H, W): 0 if none is above the threshold, else 1 + the number of the largest.

    The first of equal maps wins.
    """
    if not len(maps):
        return np.zeros(maps.shape[1:], dtype=np.uint8)
    return np.where(maps.max(axis=0) > threshold, maps.argmax(axis=0) + 1, 0).astype(np.uint8)


def label_crf(image: np.ndarray, labels: np.ndarray, count: int, config: LabelConfig) -> np.ndarray:
    """Snaps a label map to the image's edges by a dense CRF, whose unary energies come from the label map.

    Args:
        image: uint8 RGB (H, W, 3).
        labels: (H, W), from 0 to ``count`` - 1.
        count: number of different labels, background included.

    Returns:
        uint8 (H, W).
    """
    if count == 1:
        return labels.astype(np.uint8)
    is_own = labels == np.arange(count).reshape(-1, 1, 1)  # count H W
    probabilities = np.where(is_own, config.certainty, (1 - config.certainty) / (count - 1))
    return dense_crf(image, probabilities.astype(np.float32), config.crf).argmax(axis=0).astype(np.uint8)


def ir_label(image: np.ndarray, seed: dict[int, np.ndarray], config: LabelConfig) -> np.ndarray:
    """The label map of an image.

    Args:
        image: uint8 RGB (H, W, 3).
        seed: {class index: float32 (H, W)}; empty: all is background.

    Returns:
        uint8 (H, W): 0 background, class index + 1, 255 ignore.
    """
    keys = sorted(seed)
    maps = np.stack([seed[key] for key in keys]) if keys else np.zeros((0, *image.shape[:2]), dtype=np.float32)
    strict = cut(maps, config.fg_threshold)
    loose = cut(maps, config.bg_threshold)
    confident = label_crf(image, strict, len(keys) + 1, config)
    possible = confident if np.array_equal(strict, loose) else label_crf(image, loose, len(keys) + 1, config)
    labels = np.array([0, *(key + 1 for key in keys)], dtype=np.uint8)[confident]
    return np.where((confident == 0) & (possible > 0), np.uint8(IGNORE_LABEL), labels)


def write_label(
    image_file: ImageFile, seeds: Path, image_id: str, path: Path, config: LabelConfig,
    thresholds: Mapping[int, float] = NONE,
) -> None:  # fmt: skip
    """Makes the label map of an image and writes it as a palette PNG; a job for `common.run.pool.WorkerPool`.

    Args:
        thresholds: of classes, by which the seed is calibrated.

    Raises:
        UserError: the seed is missing, damaged or unfit.
    """
    image = np.array(image_file.read())
    seed = read_maps(seeds, image_id, image.shape[:2])
    if max(seed, default=0) + 1 >= IGNORE_LABEL:
        raise UserError(f"the seed of {image_id} in {seeds} has class {max(seed)}; masks have room for 0 to 253")
    write_mask(path, ir_label(image, calibrated(seed, thresholds), config))
