"""Voting over segments: the pixels of a segment share one value per class.

Symbols: k classes of an image, n segments, M pixels of all segments together, (H, W) the image's size.
"""

import functools

import numpy as np

from common.data.classes import IGNORE_LABEL
from common.data.seed_labels import winners
from common.data.seeds import Seed
from common.data.segments import Segments


def vote(seed: Seed, segments: Segments, rule: str = "mean", threshold: float = 0.0, min_cover: float = 0.0) -> Seed:
    """Gives every pixel the vote of the segment in front; pixels without a segment keep their values.

    A segment votes with all of its pixels, hidden ones as well. Its value of a class is, over these pixels,

    * ``mean``: the mean;
    * ``max``: the maximum;
    * ``weighted``: the mean weighted by each pixel's highest value, so that pixels without any class count less.

    Args:
        threshold: background's value, for ``min_cover``; see `common.data.seed_labels.winners`.
        min_cover: smallest share of a segment's pixels with a class's label for that class to count in it; below, the
            segment's value of the class is 0.

    Returns:
        float32 (H, W) by class.
    """
    if not seed or not len(segments.counts):
        return dict(seed)
    owners = segments.owners()
    is_covered = owners >= 0
    votes = _votes(seed, segments, rule)
    if min_cover > 0:
        for vote_of, share in zip(votes, _shares(seed, segments, threshold)[1:], strict=True):
            vote_of[share < min_cover] = 0
    return {
        key: np.where(is_covered, vote_of.astype(np.float32).take(owners, mode="wrap"), values)
        for (key, values), vote_of in zip(seed.items(), votes, strict=True)
    }


def undecided(seed: Seed, segments: Segments, threshold: float) -> np.ndarray:
    """Pixels of segments in which no label, background among them, has more than half of the pixels; bool (H, W).

    Args:
        threshold: background's value, see `common.data.seed_labels.winners`.
    """
    if not len(segments.counts):
        return np.zeros(segments.size, dtype=bool)
    owners = segments.owners()
    has_none = _shares(seed, segments, threshold).max(axis=0) <= 0.5
    return (owners >= 0) & has_none.take(owners, mode="wrap")


def segment_means(values: np.ndarray, segments: Segments) -> np.ndarray:
    """A map (H, W) whose pixels have the mean over the segment in front; others keep their value. float32 (H, W)."""
    return vote({0: values}, segments)[0]


def _votes(seed: Seed, segments: Segments, rule: str) -> list[np.ndarray]:
    """The segments' values of each class, float64 (n,) each."""
    starts = segments.starts
    by_class = [values.ravel().take(segments.pixels) for values in seed.values()]  # M each, float32
    if rule == "max":
        return [np.maximum.reduceat(values, starts).astype(np.float64) for values in by_class]
    if rule == "mean":
        return [np.add.reduceat(values, starts, dtype=np.float64) / segments.counts for values in by_class]
    weights = functools.reduce(np.maximum, by_class)
    total = np.add.reduceat(weights, starts, dtype=np.float64)
    total[total == 0] = 1
    product = np.empty(len(weights))  # one for all classes: new memory of this size takes as long as the products
    return [
        np.add.reduceat(np.multiply(values, weights, out=product, dtype=np.float64), starts) / total
        for values in by_class
    ]


def _shares(seed: Seed, segments: Segments, threshold: float) -> np.ndarray:
    """The share of each label in each segment, float64 (k + 1, n), background first."""
    number = len(seed) + 1
    code = np.repeat(np.arange(len(segments.counts)) * number, segments.counts)
    code += winners(seed, segments.size, threshold).ravel().take(segments.pixels)
    counts = np.bincount(code, minlength=number * len(segments.counts))
    return counts.reshape(-1, number).T / segments.counts


def ignored(mask: np.ndarray, where: np.ndarray) -> np.ndarray:
    """A mask with 255 where a bool (H, W) says so."""
    return np.where(where, np.uint8(IGNORE_LABEL), mask)
