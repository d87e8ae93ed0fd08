"""Boxes of a localisation as a file: of every image, at every threshold, with the maps that they enclose.

A box is x1, y1, x2, y2 in pixels of the square that images are brought to. A map is stretched to 0 ... 255 in the
square and truncated to whole numbers; a pixel lies inside at a threshold if it is above that share of the largest
value, which is truncated, too (Zhou et al., CVPR 2016, section 3.2; Choe et al., CVPR 2020, section 4.1).
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from common.run.errors import UserError, first_line
from common.run.files import atomic_write, load_npz

THRESHOLDS = np.arange(100) / 100  # of a map's largest value
LARGEST_SIDE = 4096  # of a square, in pixels
HITS = ("cls_top1", "cls_top5", "loc_top1", "loc_top5", "gt_known")  # scores that an image has or has not


def boxes_path(run: Path, weights: str) -> Path:
    """The place of the boxes of a set of weights in a run folder."""
    return run / f"boxes_{weights}.npz"


def stretched(cam: np.ndarray, side: int) -> np.ndarray:
    """A map (h, w) brought to a square (bilinear, half-pixel centres) and to [0, 1]; a constant map becomes 0.

    Returns:
        float32 (side, side).
    """
    large = cv2.resize(np.ascontiguousarray(cam, dtype=np.float32), (side, side))
    low = large.min()
    high = large.max()
    return (large - low) / (high - low) if high > low else np.zeros_like(large)


def grey_map(cam: np.ndarray, side: int) -> np.ndarray:
    """A map (h, w) as whole numbers, uint8 (side, side); 0 everywhere for a constant map."""
    return (stretched(cam, side) * 255).astype(np.uint8)


def background(grey: np.ndarray, threshold: float) -> int:
    """The value of a grey map up to which its pixels lie outside the box."""
    return int(threshold * int(grey.max()))


def thresholds_below(grey: np.ndarray) -> np.ndarray:
    """The number of `THRESHOLDS` at which each pixel of a grey map lies inside, uint8 (side, side).

    A pixel lies inside at the threshold of an index exactly if its number is above the index.
    """
    cuts = [background(grey, threshold) for threshold in THRESHOLDS]
    return np.searchsorted(cuts, grey).astype(np.uint8)


@dataclass(frozen=True)
class BoxFile:
    """The boxes of one set of weights; N images, T = `THRESHOLDS`.

    Attributes:
        ids: image ids, text (N,).
        side: of the square, int ().
        threshold: that of ``known_boxes``, float ().
        labels: true classes, int (N,).
        first: classes of the largest logits, int (N,).
        outcomes: of the first classes and their boxes, text (N,).
        hits: whether an image is right by each of `HITS`, bool (N, 5).
        true_boxes: int (N, 4).
        first_boxes: boxes of the first classes, int (N, 4).
        known_boxes: boxes of the true classes, int (N, 4).
        known_ious: their IoU with the true boxes, float (N,).
        boxes: boxes of the true classes at every threshold, int (N, T, 4).
        ious: their IoU, float (N, T).
        maps: CAMs of the true classes, float32 (N, h, w).
    """

    ids: np.ndarray
    side: np.ndarray
    threshold: np.ndarray
    labels: np.ndarray
    first: np.ndarray
    outcomes: np.ndarray
    hits: np.ndarray
    true_boxes: np.ndarray
    first_boxes: np.ndarray
    known_boxes: np.ndarray
    known_ious: np.ndarray
    boxes: np.ndarray
    ious: np.ndarray
    maps: np.ndarray

    def write(self, path: Path) -> None:
        """Writes the file, atomically."""
        with atomic_write(path) as file:
            np.savez_compressed(file, **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    @classmethod
    def read(cls, path: Path) -> "BoxFile":
        """Reads a file.

        Raises:
            UserError: it is missing or damaged.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        again = "score the localisation again to have it written"
        if not path.is_file():
            raise UserError(f"no file of boxes {path}; {again}")
        try:
            found = cls(*load_npz(path, names))
            found._check()
        except Exception as error:  # NumPy's reader has a dozen types
            raise UserError(f"{path} is damaged or no file of boxes ({first_line(error)}); {again}") from error
        return found

    def grey(self, row: int) -> np.ndarray:
        """The map of an image as whole numbers, uint8 (side, side)."""
        return grey_map(self.maps[row], int(self.side))

    def _check(self) -> None:
        """Checks types, shapes and ranges.

        Raises:
            ValueError: one is wrong; it is named.
        """
        count = len(self.ids) if self.ids.ndim else 0
        steps = len(THRESHOLDS)
        expected = {
            "ids": ("U", (count,)), "side": ("iu", ()), "threshold": ("f", ()), "labels": ("iu", (count,)),
            "first": ("iu", (count,)), "outcomes": ("U", (count,)), "hits": ("b", (count, len(HITS))),
            "true_boxes": ("iu", (count, 4)), "first_boxes": ("iu", (count, 4)), "known_boxes": ("iu", (count, 4)),
            "known_ious": ("f", (count,)), "boxes": ("iu", (count, steps, 4)), "ious": ("f", (count, steps)),
            "maps": ("f", (count, *self.maps.shape[1:])),
        }  # fmt: skip
        for name, (kinds, shape) in expected.items():
            values = getattr(self, name)
            if values.dtype.kind not in kinds or values.shape != shape:
                raise ValueError(f"{name} has type {values.dtype} and shape {values.shape}")
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise ValueError(f"{name} has values that are not finite")
        if not count or self.maps.ndim != 3 or not self.maps.size:
            raise ValueError("it has no image, or no maps")
        if not 0 < self.side <= LARGEST_SIDE or min(self.labels.min(), self.first.min()) < 0:
            raise ValueError("it has a square or a class that cannot be")
