"""The rules that fuse the seeds of several runs, pixel by pixel and class by class.

Symbols: n runs with weights w_i that sum to 1, s_i the value of a class at a pixel in run i.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from common.data.seed_labels import winners
from common.data.seeds import Seed

FEW = 4096  # combinations of labels, of which those that occur need not be looked for

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
    """The mean where all runs count; elsewhere that over the runs with the label of the highest weight.

    Which runs count depends on the runs' labels at a pixel alone, and an image has few combinations of them.
    """
    size = next(iter(seeds[0].values())).shape
    fused = fuse(seeds, "mean", weights, thresholds)
    combinations, place = _combinations(run_labels(seeds, thresholds, size), len(seeds[0]) + 1)
    shares = _shares(list(combinations.T), weights)
    counts = np.stack(shares) == functools.reduce(np.maximum, shares)  # runs x combinations
    agrees = (combinations == combinations[:, :1]).all(axis=1)
    kinds, kind_of = np.unique(np.vstack([counts, agrees]), axis=1, return_inverse=True)
    for kind, (*counted, agree) in enumerate(kinds.T.tolist()):
        own = list(itertools.compress(weights, counted))
        if agree or (all(counted) and sum(own) == 1):  # it is the mean already
            continue
        where = np.flatnonzero((kind_of.ravel() == kind).take(place))
        for key, values in fused.items():
            parts = [seed[key].ravel().take(where) for seed in itertools.compress(seeds, counted)]
            np.put(values, where, parts[0] if len(parts) == 1 else _weighted_mean(parts, own, sum(own)))
    return fused


def _combinations(labels: Sequence[np.ndarray], number: int) -> tuple[np.ndarray, np.ndarray]:
    """Combinations of the runs' labels, (m, n), all that occur among them, and each pixel's place in it, (H W,).

    Args:
        number: of labels, from 0.
    """
    count = number ** len(labels)
    if count > FEW:
        found, place = np.unique(np.stack([own.ravel() for own in labels], axis=1), axis=0, return_inverse=True)
        return found, place.ravel()
    place = np.zeros(labels[0].size, dtype=np.uint16)
    for own in labels:
        place *= np.uint16(number)
        place += own.ravel()
    digits = [np.arange(count) // number**power % number for power in reversed(range(len(labels)))]
    return np.stack(digits, axis=1), place


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


def _weighted_mean(values: Sequence[np.ndarray], weights: Sequence[float], total: float) -> np.ndarray:
    found = np.multiply(values[0], weights[0], dtype=np.float64)
    product = np.empty_like(found)  # one for all runs: new memory of this size takes as long as the products
    for value, weight in zip(values[1:], weights[1:], strict=True):
        found += np.multiply(value, weight, out=product, dtype=np.float64)
    if total != 1:
        found /= total
    return found.astype(np.float32)


def _geometric_mean(values: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    if len(values) == 2 and weights[0] == weights[1]:  # a root is exact, and a fifth of the time of two logarithms
        return np.sqrt(np.multiply(*values, dtype=np.float64)).astype(np.float32)
    with np.errstate(divide="ignore"):
        logs = sum(weight * np.log(value, dtype=np.float64) for value, weight in zip(values, weights, strict=True))
    return np.exp(logs).astype(np.float32)
