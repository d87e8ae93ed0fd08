"""Numbers of thresholds below values, and their counts: all that a sweep over thresholds needs of a map."""

import cv2
import numpy as np

from common.run.errors import UserError

MAX_CELLS = 1 << 20


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
        self._below = np.searchsorted(cells, numbers).astype(np.uint16 if len(cells) < 1 << 16 else np.uint32)
        self._inside = np.full(len(numbers), np.inf, dtype=np.float32)
        self._inside[cells] = thresholds
        self._top = np.float32(numbers[-1]) / self._scale  # above all thresholds

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Unsigned integers of the shape of ``values`` (float32, no NaN)."""
        if self._below is None:
            return np.searchsorted(self.thresholds, values).astype(np.min_scalar_type(len(self.thresholds)))
        cell = np.clip(values, np.float32(0), self._top)  # negative values are below all thresholds, as 0 is
        cell *= self._scale
        cell = cell.astype(np.intp)
        return self._below.take(cell, mode="clip") + (values > self._inside.take(cell, mode="clip"))


def above(histogram: np.ndarray) -> np.ndarray:
    """From (K, n + 1) counts by number of thresholds below the value: counts above each threshold, (n, K)."""
    return np.cumsum(histogram[:, ::-1], axis=1)[:, ::-1][:, 1:].T.copy()


def level_histogram(levels: np.ndarray, num_levels: int) -> np.ndarray:
    """Pixels of each level but 0, which is not counted: int64 (``num_levels``,).

    Args:
        levels: 0 to ``num_levels`` - 1, uint8 or uint16 (H, W).
    """
    if levels.dtype != np.uint8 or levels.size >= 1 << 24:  # up to there the counts of float32 are exact
        return np.bincount(levels[levels > 0], minlength=num_levels)
    counts = cv2.calcHist([levels], [0], levels, [256], [0, 256])  # a level is its own mask: zeros are passed over
    return counts.ravel()[:num_levels].astype(np.int64)
