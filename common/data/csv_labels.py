"""The label table of a user's own set, ``labels.csv``: classes and multi-hot labels."""

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.data.classes import MOST_CLASSES, alike, check_classes, looks_like
from common.data.lists import canonical_id
from common.run.errors import UserError, first_line, preview
from common.run.text import read_text

ID_COLUMNS = ("id", "image", "image_id", "image_name", "file", "filename", "file_name")
_VALUES = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_SEVERAL = re.compile(r"[,|/&+\s]+")  # separators that people write in place of ;
_CERTAIN = re.compile(r"[,|]")  # characters that no name of a class has by chance


@dataclass(frozen=True)
class _Table:
    """Header and rows of a CSV, cells stripped; rows by the line in which they end."""

    path: Path
    header: list[str]
    rows: list[tuple[int, list[str]]]

    @property
    def has_names(self) -> bool:
        """Whether the second column holds names of classes; else each class has a column."""
        return len(self.header) == 2 and self.header[1].lower() in ("label", "labels")

    def names(self, row: list[str]) -> list[str]:
        """The classes of a row.

        Raises:
            ValueError: it has the wrong number of cells, or cells that are no values.
        """
        if self.has_names:
            if len(row) > 2:
                raise ValueError("more than an id and a label; several labels are separated by ';' in one cell")
            return [name for cell in row[1:] for name in (part.strip() for part in cell.split(";")) if name]
        if len(row) != len(self.header) or any(cell.lower() not in _VALUES for cell in row[1:]):
            raise ValueError(f"expected an id and {len(self.header) - 1} values of 0 or 1")
        return [name for name, cell in zip(self.header[1:], row[1:], strict=True) if _VALUES[cell.lower()]]


def read_csv(path: Path, classes: Sequence[str], dataset: str = "folder") -> dict[str, np.ndarray]:
    """Multi-hot labels, float32 (C,), by image id. Two forms, each with a header line that starts with ``id``:

        id,label          names or 0-based indices, separated by ';', empty for none:   img_1,cat;dog
        id,cat,dog,...    one column of 0 or 1 for each class:                          img_1,1,0

    The ``id`` is the image's file name, with or without extension.

    Raises:
        UserError: the file or a row is not of that form; the row is named.
    """
    table = _read(path)
    index = {name: i for i, name in enumerate(classes)}
    labels: dict[str, np.ndarray] = {}
    for line, row in table.rows:
        try:
            image_id = canonical_id(row[0], dataset)
            vector = np.zeros(len(classes), np.float32)
            for name in table.names(row):
                number = index[name] if name in index else _index(name)
                if number is None or number >= len(classes):
                    raise ValueError(
                        f"{name!r} is no class (classes: {preview(classes, 10)}).{looks_like(name, classes)}"
                    )
                vector[number] = 1
        except ValueError as error:
            raise UserError(f"{path}, row {line}: {error}") from error
        if image_id in labels:
            raise UserError(f"{path}, row {line}: {image_id} has a row already; join the two")
        labels[image_id] = vector
    return labels


def csv_classes(path: Path) -> list[str]:
    """The class names of a label table: its columns, or all names that occur in its lists, sorted.

    Raises:
        UserError: the table cannot be used, or two of its names are probably one class.
    """
    table = _read(path)
    names = table.header[1:]
    if table.has_names:
        counts: Counter[str] = Counter()
        for line, row in table.rows:
            try:
                counts.update(table.names(row))
            except ValueError as error:
                raise UserError(f"{path}, row {line}: {error}") from error
        numbers = [_index(name) for name in counts]
        names = sorted(counts)
        if counts and None not in numbers:
            names = [str(i) for i in range(max(number for number in numbers if number is not None) + 1)]
            if 0 not in numbers:
                raise UserError(
                    f"{path} has no label 0: numbers are class indices, counted from 0 ({_shown(counts)}). Count from "
                    "0, write names, or name the classes in a file: data.classes=FILE"
                )
        _refuse_variants(counts, path)
    check_classes(names, f"the label table {path}")
    return names


def _index(text: str) -> int | None:
    """A class index; None for a text that is none."""
    is_index = text.isascii() and text.isdigit() and len(text) <= 9 and int(text) < MOST_CLASSES
    return int(text) if is_index else None


def _shown(counts: Counter[str]) -> str:
    return preview((f"{name!r} in {count} row(s)" for name, count in sorted(counts.items())), 10)


def _refuse_variants(counts: Counter[str], path: Path) -> None:
    """Refuses names that are one class in two spellings, or several classes in one cell."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in counts:
        spellings[alike(name)].append(name)
    doubtful = {name for group in spellings.values() if len(group) > 1 for name in group}
    for name in counts:
        parts = [part for part in _SEVERAL.split(name) if part]
        if _CERTAIN.search(name) or (len(parts) > 1 and all(alike(part) in spellings for part in parts)):
            doubtful.add(name)
    if doubtful:
        raise UserError(
            f"{path} has labels that look like other ones or like several in one: "
            f"{_shown(Counter({name: counts[name] for name in doubtful}))}. Several labels are separated by ';'. "
            "Correct the table, or name the classes in a file: data.classes=FILE"
        )


def _read(path: Path) -> _Table:
    text = read_text(path, "the label table")
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise UserError(
            f"the label table {path} cannot be read: line {reader.line_num}: {first_line(error)}"
        ) from error
    rows = [(line, row) for line, row in rows if any(row)]
    header = rows[0][1] if rows else []
    if len(rows) < 2 or len(header) < 2 or header[0].lower() not in ID_COLUMNS:
        raise UserError(
            f"the label table {path} must start with a header 'id,label' or 'id,<class>,<class>,...' and hold "
            f"rows.{_cause(header)}"
        )
    width = max(column + 1 for _, row in rows for column, cell in enumerate(row) if cell)
    rows = [(line, row[:width]) for line, row in rows]  # every line may end with a comma
    header = rows[0][1]
    unnamed = [str(number) for number, name in enumerate(header, start=1) if not name or name.startswith("Unnamed:")]
    if unnamed:
        raise UserError(f"the label table {path} has columns without a name: {preview(unnamed)}. Name or remove them")
    return _Table(path, header, rows[1:])


def _cause(header: list[str]) -> str:
    """The probable cause of a header that is none."""
    first = header[0] if header else ""
    if len(header) > 1 and (not first or first.startswith("Unnamed:")):
        return " Its first column is the index of pandas: write it with to_csv(..., index=False)"
    for separator, name in ((";", "';'"), ("\t", "tabs")):
        if first.lower().split(separator)[0].strip() in ID_COLUMNS and separator in first:
            return f" Its columns are separated by {name}: save it with commas"
    return ""
