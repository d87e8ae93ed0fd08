"""A background threshold for each class, as a JSON: ``{"thresholds": {"cat": 0.35, ...}, ...}``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from common.data.seeds import Seed
from common.run.errors import UserError, first_line, preview
from common.run.files import write_json
from common.run.text import read_json_object


def write_thresholds(path: Path, classes: Sequence[str], thresholds: Sequence[float], settings: dict) -> None:
    """Writes thresholds by class name, with the settings that they were tuned under."""
    write_json(path, {**settings, "thresholds": dict(zip(classes, thresholds, strict=True))})


def read_thresholds(path: Path, classes: Sequence[str]) -> dict[int, float]:
    """Thresholds by class index, of the classes that the file names.

    Raises:
        UserError: the file is missing or damaged, or names other classes.
    """
    try:
        named = read_json_object(path, "the thresholds")["thresholds"]
        found = {str(name): value for name, value in named.items()}
    except (KeyError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read as thresholds by class ({type(error).__name__}: {first_line(error)}); "
            "evaluation.py and vote.py write it with --tune_on"
        ) from error
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise UserError(
            f"{path} has thresholds of {preview(unknown, 3)}; the classes are {preview(classes, 10)}. Name the file of "
            "this data set"
        )
    wrong = [name for name, value in found.items() if not _is_threshold(value)]
    if wrong:
        raise UserError(f"{path}: the threshold of {wrong[0]} is {found[wrong[0]]!r}; it must be a number from 0 to 1")
    return {index: float(found[name]) for index, name in enumerate(classes) if name in found}


def calibrated(seed: Seed, thresholds: Mapping[int, float]) -> Seed:
    """A seed whose classes have one threshold in common: the mean of the thresholds.

    Each map is stretched piecewise linearly, such that 0 and 1 stay and the class's own threshold becomes the common
    one. So every refinement, whose rules know no classes, works with the threshold of each class. Classes without a
    threshold keep their maps; without any threshold the seed is returned.

    Args:
        thresholds: by class index, from 0 to 1.

    Returns:
        float32 (H, W) by class.
    """
    if not thresholds:
        return seed
    level = sum(thresholds.values()) / len(thresholds)
    return {key: _stretched(values, thresholds.get(key, level), level) for key, values in seed.items()}


def _stretched(values: np.ndarray, threshold: float, level: float) -> np.ndarray:
    """A map with ``level`` in place of its values at ``threshold``."""
    if threshold == level:
        return values
    limit = np.float32(threshold)
    # The ratio of two thresholds may be beyond float32; that of a value to its threshold is at most 1.
    below = np.minimum(values, limit) / limit * np.float32(level) if limit > 0 else np.zeros_like(values)
    above = np.float32(level) + (values - limit) * np.float32((1 - level) / (1 - threshold) if threshold < 1 else 1)
    return np.where(values > limit, above, below)


def _is_threshold(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
