"""Labels of seeds: the class of the highest value at each pixel, or background."""

from collections.abc import Mapping

import numpy as np


def winners(
    seed: Mapping[int, np.ndarray], shape: tuple[int, int], threshold: float,
    by_class: Mapping[int, float] | None = None,
) -> np.ndarray:  # fmt: skip
    """The place, from 1, of each pixel's class among those of the seed, or 0 for background; uint8 (H, W).

    Args:
        threshold: a pixel is background where its highest value is not above it; the lower of equal classes wins.
        by_class: thresholds of single classes instead, which count where theirs is the highest value.
    """
    best = np.full(shape, -np.inf, dtype=np.float32)
    winner = np.zeros(shape, dtype=np.uint8)
    limit = np.full(shape, threshold, dtype=np.float32)
    for place, (key, values) in enumerate(seed.items(), start=1):
        is_better = values > best
        np.copyto(winner, place, where=is_better)
        np.copyto(best, values, where=is_better)
        if by_class:
            np.copyto(limit, by_class.get(key, threshold), where=is_better)
    return np.where(best > limit, winner, np.uint8(0))


def seed_labels(
    seed: Mapping[int, np.ndarray], threshold: float, shape: tuple[int, int],
    by_class: Mapping[int, float] | None = None,
) -> np.ndarray:  # fmt: skip
    """The mask of a seed, uint8 (H, W): class index + 1, or 0 for background; see `winners`."""
    ordered = {key: seed[key] for key in sorted(seed)}
    labels = np.array([0, *(key + 1 for key in ordered)], dtype=np.uint8)
    return labels[winners(ordered, shape, threshold, by_class)]
