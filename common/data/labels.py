"""Image labels from every source that WSSS projects use, as one table: id -> multi-hot float32 vector."""

import csv
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from common.data.lists import canonical_id
from common.run.errors import UserError, first_line, preview
from common.run.files import AGAIN, atomic_write, load_npy, load_npz

Labels = dict[str, np.ndarray]
MOST_BYTES = 8192  # of a row of a packed label table


def read_labels(path: str | Path, ids: Iterable[str], classes: Sequence[str], dataset: str) -> Labels:
    """Labels of ``ids``.

    Args:
        path: Their source: a folder of VOC ``<id>.xml`` annotations, an official ``cls_labels.npy`` (a pickled
            dictionary with text or integer keys), a ``.npz`` as `write_labels` makes it, COCO ``instances_*.json``, or
            a CSV (see `read_csv`).
        classes: Foreground class names in label order.

    Returns:
        For each id a float32 (C,) vector of zeros and ones.

    Raises:
        UserError: the source does not exist, is damaged or unsafe, lacks ids, or has vectors of another length.
    """
    path = Path(path)
    ids = list(dict.fromkeys(ids))
    if path.is_dir():
        return {image_id: _from_xml(path / f"{image_id}.xml", classes) for image_id in ids}
    readers: dict[str, Callable[[Path, Sequence[str], str], Labels]] = {
        ".npy": _from_npy, ".npz": _from_npz, ".json": _from_instances, ".csv": read_csv,
    }  # fmt: skip
    if not path.exists():
        raise UserError(f"no image labels at {path}")
    if path.suffix not in readers:
        raise UserError(
            f"image labels in {path}: unknown kind of file; known are a folder of XML, {', '.join(readers)}"
        )
    table = readers[path.suffix](path, classes, dataset)
    missing = [image_id for image_id in ids if image_id not in table]
    if missing:
        raise UserError(f"{path} has no labels for {len(missing)} of {len(ids)} images: {preview(missing)}")
    return {image_id: table[image_id] for image_id in ids}


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
        table = {name.decode(): row for name, row in zip(names, matrix, strict=True)}
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
        raise UserError(f"{path} holds {type(content).__name__}, not a dictionary of image id to label vector")
    return _checked(content, path, classes, dataset)


def _checked(table: dict, path: Path, classes: Sequence[str], dataset: str) -> Labels:
    labels = {}
    for key, vector in table.items():
        try:
            image_id = canonical_id(key, dataset)
        except ValueError as error:
            raise UserError(f"image labels in {path}: {error}") from error
        row = np.asarray(vector, dtype=np.float32)
        if row.shape != (len(classes),) or not np.isin(row, (0, 1)).all():
            found = row.shape[0] if row.ndim == 1 else row.shape
            raise UserError(
                f"image labels in {path}: {image_id} has {found} values, but the data set has {len(classes)} classes, "
                "each 0 or 1. Is it the label file of another data set?"
            )
        labels[image_id] = row
    return labels


def _from_xml(path: Path, classes: Sequence[str]) -> np.ndarray:
    """VOC: every ``<name>`` that is a class counts, objects marked difficult or truncated too; body parts do not."""
    try:
        names = {element.text for element in ElementTree.parse(path).iter("name")}
    except OSError as error:
        raise UserError(
            f"no annotation {path} ({error.strerror}); set data.labels to another source of labels"
        ) from error
    except ElementTree.ParseError as error:
        raise UserError(f"the annotation {path} is damaged: {error}") from error
    return np.array([name in names for name in classes], dtype=np.float32)


def _from_instances(path: Path, classes: Sequence[str], dataset: str) -> Labels:
    """COCO: a class is present when the image has any annotation of it, crowds included."""
    try:
        content = json.loads(path.read_text())
        columns = {cat["id"]: i for i, cat in enumerate(sorted(content["categories"], key=lambda cat: cat["id"]))}
        labels = {canonical_id(image["id"], dataset): np.zeros(len(columns), np.float32) for image in content["images"]}
        for annotation in content["annotations"]:
            labels[canonical_id(annotation["image_id"], dataset)][columns[annotation["category_id"]]] = 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as COCO instances ({type(error).__name__}: {error})") from error
    return _checked(labels, path, classes, dataset)


def read_csv(path: Path, classes: Sequence[str], dataset: str = "folder") -> Labels:
    """Labels of a generic data set. Two forms, each with a header line that starts with ``id``:

        id,label          names or 0-based indices, separated by ';', empty for none:   img_1,cat;dog
        id,cat,dog,...    one column of 0 or 1 for each class:                          img_1,1,0

    The ``id`` is the image's file name, with or without extension.

    Raises:
        UserError: the file or a row is not of that form; the row is named.
    """
    rows = _csv_rows(path)
    header = [cell.strip() for cell in rows[0]]
    index = {name: i for i, name in enumerate(classes)}
    labels: Labels = {}
    for number, row in enumerate(rows[1:], start=2):
        try:
            image_id = canonical_id(row[0], dataset)
            vector = np.zeros(len(classes), np.float32)
            if _is_name_list(header):
                names = [name.strip() for name in (row[1] if len(row) > 1 else "").split(";") if name.strip()]
            else:
                if len(row) != len(header) or any(cell.strip() not in ("0", "1") for cell in row[1:]):
                    raise ValueError(f"expected an id and {len(header) - 1} values of 0 or 1")
                names = [name for name, cell in zip(header[1:], row[1:], strict=True) if cell.strip() == "1"]
            for name in names:
                if name not in index and not (name.isdigit() and int(name) < len(classes)):
                    raise ValueError(f"{name!r} is no class (classes: {preview(classes, 10)})")
                vector[index[name] if name in index else int(name)] = 1
        except ValueError as error:
            raise UserError(f"{path}, row {number}: {error}") from error
        if image_id in labels:
            raise UserError(f"{path}, row {number}: {image_id} has a row already")
        labels[image_id] = vector
    return labels


def csv_classes(path: Path) -> list[str]:
    """The class names of a generic data set's CSV: its columns, or all names that occur in its lists, sorted."""
    rows = _csv_rows(path)
    header = [cell.strip() for cell in rows[0]]
    if not _is_name_list(header):
        return header[1:]
    names = {name.strip() for row in rows[1:] if len(row) > 1 for name in row[1].split(";") if name.strip()}
    if names and all(name.isdigit() for name in names):
        return [str(i) for i in range(max(map(int, names)) + 1)]
    return sorted(names)


def _is_name_list(header: list[str]) -> bool:
    return len(header) == 2 and header[1].lower() in ("label", "labels")


def _csv_rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the label table {path} cannot be read: {error}") from error
    if len(rows) < 2 or len(rows[0]) < 2 or rows[0][0].strip().lower() not in ("id", "image", "image_id"):
        raise UserError(
            f"the label table {path} must start with a header 'id,label' or 'id,<class>,<class>,...' and hold rows"
        )
    return rows
