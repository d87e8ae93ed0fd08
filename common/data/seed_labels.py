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
    if not seed:
        return np.zeros(shape, dtype=np.uint8)
    first, *others = seed.values()
    best = np.array(first, dtype=np.float32)
    winner = np.ones(shape, dtype=np.uint8)
    for place, values in enumerate(others, start=2):
        is_better = (values > best).view(np.uint8)
        np.maximum(winner, is_better * np.uint8(place), out=winner)  # places ascend
        np.maximum(best, values, out=best)
    limit: np.ndarray | np.float32 = np.float32(threshold)
    if by_class:
        limits = [threshold, *(by_class.get(key, threshold) for key in seed)]
        limit = np.array(limits, dtype=np.float32).take(winner)
    winner *= best > limit
    return winner


def seed_labels(
    seed: Mapping[int, np.ndarray], threshold: float, shape: tuple[int, int],
    by_class: Mapping[int, float] | None = None,
) -> np.ndarray:  # fmt: skip
    """The mask of a seed, uint8 (H, W): class index + 1, or 0 for background; see `winners`."""
    ordered = {key: seed[key] for key in sorted(seed)}
    labels = np.array([0, *(key + 1 for key in ordered)], dtype=np.uint8)
    return labels[winners(ordered, shape, threshold, by_class)]
