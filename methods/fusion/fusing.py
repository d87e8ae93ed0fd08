"""The rules that fuse the seeds of several runs, pixel by pixel and class by class.

Symbols: n runs with weights w_i that sum to 1, s_i the value of a class at a pixel in run i.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from common.data.seed_labels import winners
from common.data.seeds import Seed


def fuse(seeds: Sequence[Seed], how: str, weights: Sequence[float], thresholds: Sequence[float]) -> Seed:
    """One seed of several, of the same classes and size.

    ``mean``: sum of w_i s_i. ``geometric``: product of s_i^w_i. ``min`` and ``max``. ``vote``: the mean over the runs
    whose label is the pixel's most frequent one, by weight; of all of these where several labels are equally frequent.

    Args:
        weights: sum to 1.
        thresholds: background's value in each run, for the labels of ``vote``.

    Returns:
        float32 (H, W) by class.
    """
    if how == "vote":
        return _vote(seeds, weights, thresholds)
    if how == "mean":
        return {key: _weighted_mean([seed[key] for seed in seeds], weights, 1.0) for key in seeds[0]}
    if how == "geometric":
        return {key: _geometric_mean([seed[key] for seed in seeds], weights) for key in seeds[0]}
    rule = np.minimum if how == "min" else np.maximum
    return {key: functools.reduce(rule, [seed[key] for seed in seeds]) for key in seeds[0]}


def _vote(seeds: Sequence[Seed], weights: Sequence[float], thresholds: Sequence[float]) -> Seed:
    """The mean where all runs agree; elsewhere that over the runs with the label of the highest weight."""
    size = next(iter(seeds[0].values())).shape
    labels = run_labels(seeds, thresholds, size)
    disputed = np.nonzero(functools.reduce(np.logical_or, [other != labels[0] for other in labels[1:]]))
    shares = _shares([own[disputed] for own in labels], weights)
    best = functools.reduce(np.maximum, shares)
    counted = [weight * (share == best) for weight, share in zip(weights, shares, strict=True)]
    fused = fuse(seeds, "mean", weights, thresholds)
    for key, values in fused.items():
        values[disputed] = _weighted_mean([seed[key][disputed] for seed in seeds], counted, sum(counted))
    return fused


def agreeing_runs(labels: Sequence[np.ndarray]) -> np.ndarray:
    """The number of runs with a pixel's most frequent label, uint16 (H, W); from each run's labels (H, W)."""
    shares = _shares(labels, [np.uint16(1)] * len(labels))
    return functools.reduce(np.maximum, shares)


def run_labels(seeds: Sequence[Seed], thresholds: Sequence[float], size: tuple[int, int]) -> list[np.ndarray]:
    """Each run's labels, places among the classes from 1, 0 for background: uint8 (H, W)."""
    return [winners(seed, size, threshold) for seed, threshold in zip(seeds, thresholds, strict=True)]


def _shares(labels: Sequence[np.ndarray], weights: Sequence[Any]) -> list[np.ndarray]:
    """For each run the weight of all runs that have its label, (H, W)."""
    return [sum(weight * (own == other) for other, weight in zip(labels, weights, strict=True)) for own in labels]


def _weighted_mean(values: Sequence[np.ndarray], weights: Sequence[Any], total: float | np.ndarray) -> np.ndarray:
    found = sum(np.multiply(value, weight, dtype=np.float64) for value, weight in zip(values, weights, strict=True))
    return (found / total).astype(np.float32)


def _geometric_mean(values: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    if len(values) == 2 and weights[0] == weights[1]:  # a root is exact, and a fifth of the time of two logarithms
        return np.sqrt(np.multiply(*values, dtype=np.float64)).astype(np.float32)
    with np.errstate(divide="ignore"):
        logs = sum(weight * np.log(value, dtype=np.float64) for value, weight in zip(values, weights, strict=True))
    return np.exp(logs).astype(np.float32)
