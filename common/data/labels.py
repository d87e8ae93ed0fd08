"""Image labels from every source that WSSS projects use, as one table: id -> multi-hot float32 vector."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.data.classes import looks_like
from common.data.csv_labels import read_csv
from common.data.instances import instance_labels
from common.data.lists import canonical_id
from common.data.voc_xml import object_names
from common.run.errors import UserError, first_line, preview
from common.run.files import AGAIN, atomic_write, load_npy, load_npz

Labels = dict[str, np.ndarray]
MOST_BYTES = 8192  # of a row of a packed label table


@dataclass(frozen=True)
class LabelTable:
    """Labels of images.

    Attributes:
        labels: for each id a float32 (C,) vector of zeros and ones.
        foreign: names of objects that are no class, with the number of images that have them.
        others: ids of a CSV's further rows.
    """

    labels: Labels
    foreign: Counter[str] = field(default_factory=Counter)
    others: list[str] = field(default_factory=list)


def read_labels(path: str | Path, ids: Iterable[str], classes: Sequence[str], dataset: str) -> Labels:
    """The labels of `read_label_table` alone."""
    return read_label_table(path, ids, classes, dataset).labels


def read_label_table(path: str | Path, ids: Iterable[str], classes: Sequence[str], dataset: str) -> LabelTable:
    """Labels of ``ids``.

    Args:
        path: Their source: a folder of VOC ``<id>.xml`` annotations, an official ``cls_labels.npy`` (a pickled
            dictionary with text or integer keys), a ``.npz`` as `write_labels` makes it, COCO ``instances_*.json``, or
            a CSV (see `read_csv`).
        classes: Foreground class names in label order.

    Raises:
        UserError: the source does not exist, is damaged or unsafe, lacks ids, or has vectors of another length.
    """
    path = Path(path)
    ids = list(dict.fromkeys(ids))
    if path.is_dir():
        return _from_xml(path, ids, classes)
    readers: dict[str, Callable[[Path, Sequence[str], str], Labels]] = {
        ".npy": _from_npy, ".npz": _from_npz, ".json": instance_labels, ".csv": read_csv,
    }  # fmt: skip
    if not path.exists():
        raise UserError(f"no image labels at {path}; set data.labels to their place")
    if path.suffix not in readers:
        raise UserError(
            f"image labels in {path}: unknown kind of file; known are a folder of XML, {', '.join(readers)}"
        )
    table = readers[path.suffix](path, classes, dataset)
    missing = [image_id for image_id in ids if image_id not in table]
    if missing:
        raise UserError(
            f"{path} has no labels for {len(missing)} of {len(ids)} images: {preview(missing)}."
            f"{_lost_zeros(missing, table)} Add them, empty for images without any object, or take them off the list"
        )
    others = list(table.keys() - set(ids)) if path.suffix == ".csv" else []
    return LabelTable({image_id: table[image_id] for image_id in ids}, others=sorted(others))


def _lost_zeros(missing: Sequence[str], table: Labels) -> str:
    short = [name for name in table if name.isdigit()]
    if {name.lstrip("0") for name in missing} & {name.lstrip("0") for name in short}:
        return f" It has {preview(short, 3)}: spreadsheets remove leading zeros."
    return ""


def require_classes(
    labels: np.ndarray, classes: Sequence[str], source: str, every: bool = True, foreign: Counter[str] | None = None
) -> None:
    """Makes sure that the images of a training have labels.

    Args:
        labels: multi-hot (N, C).
        source: the images, for messages.
        every: whether every class must occur.
        foreign: names of objects that are no class.

    Raises:
        UserError: no image has any class, or a class never occurs.
    """
    named = f" Names that are no class: {foreign_names(foreign, classes)}." if foreign else ""
    if not labels.any():
        raise UserError(
            f"no image of {source} has any class of {preview(classes, 3)}.{named} Check labels and class names with: "
            "python scripts/check_data.py"
        )
    absent = [name for name, column in zip(classes, labels.T, strict=True) if not column.any()]
    if absent and every:
        raise UserError(
            f"no image of {source} has the class {preview(absent)}: it would never be learned.{named} Name the classes "
            "that occur with data.classes=FILE, or allow it with data.absent_classes=allow"
        )


def foreign_names(foreign: Counter[str], classes: Sequence[str], limit: int = 5) -> str:
    """Names that are no class, most frequent first, with counts and the class that is meant."""
    texts = [f"{name!r} in {count} image(s){looks_like(name, classes)}" for name, count in foreign.most_common()]
    return preview(texts, limit)


def write_labels(path: str | Path, labels: Labels) -> None:
    """Writes labels as ``.npz``: sorted ``names`` and ``bits`` (`np.packbits` along the classes); no pickle."""
    names = sorted(labels)
    matrix = np.stack([labels[name] for name in names]).astype(np.uint8)
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            names=np.array(names, dtype="S"),
            bits=np.packbits(matrix, axis=1),
            num_classes=np.int64(matrix.shape[1]),
        )


def _from_npz(path: Path, classes: Sequence[str], dataset: str) -> Labels:
    try:
        names, number, bits = load_npz(path, ("names", "num_classes", "bits"))
        if names.ndim != 1 or names.dtype.kind != "S" or bits.ndim != 2 or bits.shape[1] > MOST_BYTES:
            raise ValueError("names are no list of text, or bits no table of at most 65,536 classes")
        matrix = np.unpackbits(bits, axis=1)[:, : int(number)].astype(np.float32)
        table = [(name.decode(), row) for name, row in zip(names, matrix, strict=True)]
    except UserError:
        raise
    except Exception as error:  # zip, format and key errors of a damaged or foreign file
        raise UserError(
            f"{path} is no label file of this project, or damaged ({type(error).__name__}: {first_line(error)}). "
            f"{AGAIN}"
        ) from error
    return _checked(table, path, classes, dataset)


def _from_npy(path: Path, classes: Sequence[str], dataset: str) -> Labels:
    content = load_npy(path)
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds {type(content).__name__}, not a dictionary of image id to label vector. Is it another file?"
        )
    return _checked(content.items(), path, classes, dataset)


def _checked(table: Iterable[tuple[Any, Any]], path: Path, classes: Sequence[str], dataset: str) -> Labels:
    labels: Labels = {}
    for key, vector in table:
        try:
            image_id = canonical_id(key, dataset)
            row = np.asarray(vector, dtype=np.float32)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"image labels in {path}: {key!r}: {first_line(error)}. Is it the label file of another data set?"
            ) from error
        if row.shape != (len(classes),) or not np.isin(row, (0, 1)).all():
            found = row.shape[0] if row.ndim == 1 else row.shape
            raise UserError(
                f"image labels in {path}: {image_id} has {found} values, but the data set has {len(classes)} classes, "
                "each 0 or 1. Is it the label file of another data set?"
            )
        if image_id in labels and (labels[image_id] != row).any():
            raise UserError(f"image labels in {path}: {image_id} is there twice, with different labels; remove one")
        labels[image_id] = row
    return labels


def _from_xml(folder: Path, ids: Sequence[str], classes: Sequence[str]) -> LabelTable:
    """VOC: every object whose name is a class counts, also if it is marked difficult or truncated."""
    table = LabelTable({})
    known = set(classes)
    for image_id in ids:
        path = folder / f"{image_id}.xml"
        if not path.is_file():
            raise UserError(f"no annotation {path}; set data.labels to another source of labels")
        names = set(object_names(path))
        table.labels[image_id] = np.array([name in names for name in classes], dtype=np.float32)
        table.foreign.update(names - known)
    return table
