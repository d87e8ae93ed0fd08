"""Reads the JSON of an evaluation, which may be damaged, or a file of another kind under its name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.run.config import LARGEST
from common.run.errors import UserError
from common.run.text import read_json_object

POINTS = ("best", "fixed", "reference_range", "early_stop", "tuned")
AGAIN = "Run evaluation.py again, or delete the file"


def read_score(path: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """The content of an evaluation's JSON, whose known entries are of the form that `Evaluation.as_dict` gives them.

    Args:
        needed: entries that must be there, besides ``best``.

    Raises:
        UserError: the file is missing or damaged, or is no result of an evaluation.
    """
    content = read_json_object(path, "the scores")
    try:
        _check(content, needed)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no result of evaluation.py: {error}. {AGAIN}") from error
    return content


def is_number(value: Any) -> bool:
    """Whether a value of a JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _check(content: Mapping[str, Any], needed: Sequence[str]) -> None:
    """Checks the entries that are there.

    Raises:
        ValueError: one is of another form, or is missing; its name is in the message.
    """
    for name in ("best", *needed):
        if name not in content:
            raise ValueError(f"it has no {name!r}")
    for name in ("task", "source", "list"):
        _require(name, isinstance(content.get(name, ""), str))
    _require("images", isinstance(content.get("images", 0), int))
    _require("warnings", isinstance(content.get("warnings", []), list))
    for name in ("thresholds", "mIoU"):
        values = content.get(name) or []
        _require(name, isinstance(values, list) and all(map(is_number, values)))
    for name in POINTS:
        if name in content:
            _check_point(name, content[name])


def _check_point(name: str, point: Any) -> None:
    _require(name, isinstance(point, dict))
    _require(f"{name}.mIoU", is_number(point.get("mIoU")))
    threshold = point.get("threshold")
    _require(f"{name}.threshold", threshold is None or is_number(threshold))
    _require(f"{name}.absent", isinstance(point.get("absent", []), list))
    classes = point.get("classes", {})
    _require(f"{name}.classes", isinstance(classes, dict))
    for label, scores in classes.items():
        _require(f"{name}.classes.{label}", isinstance(scores, dict) and all(map(is_number, scores.values())))


def _require(name: str, is_sound: bool) -> None:
    if not is_sound:
        raise ValueError(f"its {name!r} is not of the form that evaluation.py gives it")
