"""How sure a score is: the bootstrap over images (Efron, 1979).

A data set's images are drawn anew, with replacement, many times; the scores of the draws spread as the score would over
other data sets of the same kind and size. A draw is a weight for each image, so the counts of all draws are one matrix
product. The seed is fixed: the same images give the same interval, and two runs on the same images the same draws,
which makes their comparison paired. Whatever is chosen on the same images, such as a best threshold, stays as it is.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 95  # percent
SEED = 0
BLOCK = 1 << 22  # draws at a time


class Interval(NamedTuple):
    """A score and the ends of its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def difference(self) -> str:
        """As text with signs, for a difference."""
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"

    @property
    def is_above_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.low > 0


def draws(images: int, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[np.ndarray]:
    """Yields the weights of the images in some of the draws, float64 (r, images), up to all of them together."""
    rng = np.random.default_rng(seed)
    step = max(1, BLOCK // max(images, 1))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        chosen = rng.integers(images, size=(rows, images)) + images * np.arange(rows)[:, None]
        yield np.bincount(chosen.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


def interval(value: float, resampled: np.ndarray) -> Interval:
    """The middle 95 % of a score's draws, (R,); draws without a score (NaN) are left out."""
    tail = (100 - CONFIDENCE) / 2
    known = resampled[np.isfinite(resampled)]
    if not len(known):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(known, [tail, 100 - tail])
    return Interval(float(value), float(low), float(high))
