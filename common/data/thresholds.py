"""A background threshold for each class, as a JSON: ``{"thresholds": {"cat": 0.35, ...}, ...}``."""

from collections.abc import Sequence
from pathlib import Path

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
            "vote.py --tune_on writes it"
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


def _is_threshold(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
