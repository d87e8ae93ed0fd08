"""Numbers of thresholds below values, and their counts: all that a sweep over thresholds needs of a map."""

import functools
import math

import cv2
import numpy as np

from common.run.errors import UserError

MAX_CELLS = 1 << 20
LANES = 4


class ThresholdBins:
    """Number of thresholds strictly below a value, for whole maps.

    Values are cut into cells of 1 / 2^k wide, so narrow that a cell holds at most one threshold; a product with a power
    of two is exact, so a table gives the thresholds below the cell, and one comparison decides about the cell's own.
    """

    def __init__(self, thresholds: np.ndarray) -> None:
        ordered = thresholds.ndim == 1 and len(thresholds) > 0 and bool((np.diff(thresholds) > 0).all())
        if not (ordered and thresholds[0] >= 0 and np.isfinite(thresholds[-1])):
            raise UserError("thresholds must be finite, at least one, ascending (also as float32), not negative")
        self.thresholds = thresholds
        self._below: np.ndarray | None = None
        for power in range(24):
            self._scale = np.float32(2**power)
            cells = np.floor(thresholds * self._scale)
            if cells[-1] >= MAX_CELLS:
                return  # too close together for a table
            if (np.diff(cells) > 0).all():
                break
        else:
            return
        cells = cells.astype(np.int64)
        numbers = np.arange(cells[-1] + 2)
        self._below = np.searchsorted(cells, numbers).astype(np.min_scalar_type(len(cells)))
        self._inside = np.full(len(numbers), np.inf, dtype=np.float32)
        self._inside[cells] = thresholds
        self._top = np.float32(numbers[-1]) / self._scale  # above all thresholds

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Of the shape of ``values`` (float32, no NaN): unsigned integers, the smallest that hold all numbers."""
        if self._below is None:
            return np.searchsorted(self.thresholds, values).astype(np.min_scalar_type(len(self.thresholds)))
        cell = np.clip(values, np.float32(0), self._top)  # negative values are below all thresholds, as 0 is
        cell *= self._scale
        cell = cell.astype(np.intp)
        return self._below.take(cell, mode="clip") + (values > self._inside.take(cell, mode="clip"))


def above(histogram: np.ndarray) -> np.ndarray:
    """From (K, n + 1) counts by number of thresholds below the value: counts above each threshold, (n, K)."""
    return np.cumsum(histogram[:, ::-1], axis=1)[:, ::-1][:, 1:].T.copy()


def looked_up(values: np.ndarray, keys: np.ndarray, results: np.ndarray, other: int = 0) -> np.ndarray:
    """The result of each value that is a key, of all others ``other``: uint8 of the shape of ``values`` (uint8)."""
    table = np.full(256, other, dtype=np.uint8)
    table[keys] = results
    return cv2.LUT(values, table)


class JointHistogram:
    """Pixels of each group and level, for any number of maps of levels over the same groups.

    Neighbours mostly have one level, and raising one counter again and again is slow: columns take turns in `LANES`.
    """

    def __init__(self, groups: np.ndarray, num_groups: int, num_levels: int) -> None:
        """Prepares the groups.

        Args:
            groups: 0 to ``num_groups`` - 1, bool or unsigned (H, W).
        """
        self._groups = groups
        self._shape = num_groups, LANES, num_levels
        self._codes: np.ndarray | None = None  # of level 0
        if math.prod(self._shape) <= 1 << 16 and groups.size < 1 << 24:  # up to there OpenCV's float32 counts are exact
            self._codes = np.multiply(groups, np.uint16(LANES * num_levels), dtype=np.uint16)
            self._codes += _lanes(groups.shape[1], num_levels)

    def __call__(self, levels: np.ndarray) -> np.ndarray:
        """Counts: int64 (groups, levels).

        Args:
            levels: 0 to ``num_levels`` - 1, uint8 or uint16 (H, W).
        """
        num_groups, _, num_levels = self._shape
        size = math.prod(self._shape)
        if self._codes is None:
            codes = self._groups.astype(np.intp) * num_levels + levels
            return np.bincount(codes.ravel(), minlength=num_groups * num_levels).reshape(num_groups, num_levels)
        counts = cv2.calcHist([self._codes + levels], [0], None, [size], [0, size])
        return counts.reshape(self._shape).sum(axis=1).astype(np.int64)


@functools.lru_cache(maxsize=64)
def _lanes(width: int, num_levels: int) -> np.ndarray:
    """The first level of each column's lane, uint16 (W,)."""
    return np.arange(width, dtype=np.uint16) % np.uint16(LANES) * np.uint16(num_levels)
