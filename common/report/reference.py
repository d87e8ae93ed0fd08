"""Published curves of trainings, to stand beside a run's own.

A reference is a CSV with a row for each point: ``iteration``, and columns with the names of the run's terms, where a
field may be empty; each ``dataset`` and ``backbone`` has a series of its own. Lines that begin with # are comments.
"""

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.run.errors import UserError
from common.run.text import read_lines

SERIES = ("dataset", "backbone")  # columns that tell a reference's curves apart
CONTEXT = ("step", "epoch", "kind", "steps", "iteration")  # columns that are no terms

Curve = list[tuple[float, float]]  # step, value


def read_reference(text: str) -> dict[str, dict[str, Curve]]:
    """The curves of a reference by series and term.

    Args:
        text: FILE, or FILE:SERIES, where the words of SERIES choose the series that have them in their names.

    Raises:
        UserError: the file, the column ``iteration`` or the series does not exist, or a field is no number.
    """
    name, separator, series = (text, "", "") if Path(text).is_file() else text.rpartition(":")
    path = Path(name if separator else text)
    lines = [line for line in read_lines(path, "the reference") if line and not line.startswith("#")]
    table = csv.DictReader(lines)
    try:
        rows = list(table)
    except csv.Error as error:
        raise UserError(f"the reference {path} is no table of numbers ({error}); take a CSV") from error
    columns = table.fieldnames or []
    if "iteration" not in columns:
        raise UserError(f"{path} has no column 'iteration'; it has {', '.join(columns)}")
    curves: dict[str, dict[str, Curve]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        title = " ".join(row[column] for column in SERIES if column in columns) or path.stem
        for term, value in row.items():
            if value and term not in (*SERIES, *CONTEXT):
                curves[title][term].append((_number(path, row["iteration"]), _number(path, value)))
    chosen = {title: terms for title, terms in curves.items() if set(series.split()) <= set(title.split())}
    if not chosen:
        raise UserError(f"{path} has no series {series!r}; there are: {', '.join(curves) or 'none'}")
    return chosen


def series_of(path: Path, content: Mapping[str, Any]) -> dict[str, dict[str, Curve]]:
    """The series of a reference that belong to a run: its data set and backbone begin with the series' words.

    Args:
        content: the run's configuration. A data set of the user's own classes has no published curve.
    """
    data, model = content.get("data") or {}, content.get("model") or {}
    own = str(data.get("dataset", "")), str(model.get("arch", ""))
    if data.get("classes"):
        return {}
    return {
        title: curves
        for title, curves in read_reference(str(path)).items()
        if all(text.startswith(word) for text, word in zip(own, title.split(" "), strict=False))
    }


def _number(path: Path, text: str) -> float:
    try:
        return float(text)
    except (ValueError, TypeError):  # a list: more fields than columns
        raise UserError(f"{path}: {text!r} is no number") from None
