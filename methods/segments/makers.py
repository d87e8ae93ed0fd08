"""Segments of an image by clustering its colours: mean shift, SLIC, Felzenszwalb; the work is the libraries'."""

from pathlib import Path

import numpy as np

from common.data.dataset import read_image
from common.data.segments import write_labels
from methods.segments.config import FelzenszwalbConfig, MeanShiftConfig, SegmentsSection, SlicConfig


def label_map(image: np.ndarray, config: SegmentsSection) -> np.ndarray:
    """The segments of an image, uint8 RGB (H, W, 3): whole numbers (H, W), 0 for no segment."""
    if config.segmenter == "slic":
        return _slic(image, config.slic)
    if config.segmenter == "felzenszwalb":
        return _felzenszwalb(image, config.felzenszwalb)
    return _mean_shift(image, config.meanshift)


def write_label_map(image_path: Path, file: Path, config: SegmentsSection) -> None:
    """Writes an image's segments; a job for `common.run.pool.WorkerPool`."""
    write_labels(file, label_map(np.array(read_image(image_path)), config))


def _mean_shift(image: np.ndarray, config: MeanShiftConfig) -> np.ndarray:
    """Regions of nearly one colour after the mean shift (Comaniciu and Meer, 2002); small ones are no segments."""
    import cv2

    shifted = cv2.pyrMeanShiftFiltering(image, config.space, config.colour)
    height, width = shifted.shape[:2]
    labels = np.zeros((height, width), dtype=np.int32)
    seen = np.zeros((height + 2, width + 2), dtype=np.uint8)  # of the size that floodFill wants
    limit = (config.join,) * 3
    number = 0
    for y, x in np.ndindex(height, width):
        if seen[y + 1, x + 1]:
            continue
        area, _, _, (left, top, wide, high) = cv2.floodFill(
            shifted, seen, (x, y), 0, limit, limit, 4 | cv2.FLOODFILL_MASK_ONLY | (2 << 8)
        )
        inner = slice(top + 1, top + high + 1), slice(left + 1, left + wide + 1)
        region = seen[inner] == 2
        if area >= config.smallest:
            number += 1
            labels[top : top + high, left : left + wide][region] = number
        seen[inner][region] = 1
    return labels


def _slic(image: np.ndarray, config: SlicConfig) -> np.ndarray:
    """SLIC superpixels (Achanta et al., 2012)."""
    from skimage.segmentation import slic

    return slic(image, config.count, config.compactness, sigma=config.sigma, start_label=1)


def _felzenszwalb(image: np.ndarray, config: FelzenszwalbConfig) -> np.ndarray:
    """Felzenszwalb and Huttenlocher, 2004."""
    from skimage.segmentation import felzenszwalb

    return felzenszwalb(image, config.scale, config.sigma, config.smallest) + 1
