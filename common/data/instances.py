"""Instances JSON in COCO's format: categories, images, and the annotations that link them, all checked.

The regions of the annotations are checked where they are painted (`common.data.prepare.coco`).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from common.data.classes import check_classes
from common.data.lists import canonical_id
from common.run.errors import UserError, preview
from common.run.text import MEBIBYTE, read_json_object

LIMIT = 4096 * MEBIBYTE  # COCO's own largest instances JSON has 450 MB
_NOUN = "the instances JSON"


@dataclass(frozen=True)
class Annotation:
    """One annotation: its id (its place where that is no number), class index, image id, and the JSON object."""

    number: int
    category: int
    image_id: str
    content: dict[str, Any]


@dataclass(frozen=True)
class InstancesFile:
    """The content of an instances JSON.

    Attributes:
        names: of the categories by ascending category id; their place is the class index; None where they have none.
        images: the JSON objects by image id.
        annotations: in the order of the file.
    """

    path: Path
    names: list[str | None]
    images: dict[str, dict[str, Any]]
    annotations: list[Annotation]


class Faults:
    """Collects what is wrong with the entries of a file, so that one message names the first and counts all."""

    def __init__(self, path: Path, remedy: str) -> None:
        self._path, self._remedy = path, remedy
        self._found: list[str] = []

    def add(self, entry: str, reason: str) -> None:
        """Notes an entry."""
        self._found.append(f"{entry}: {reason}")

    def check(self) -> None:
        """Stops if there is any.

        Raises:
            UserError: the first entries and their number.
        """
        if self._found:
            raise UserError(
                f"{self._path} cannot be read as COCO instances: unusable entries: {len(self._found)}: "
                f"{preview(self._found)}. {self._remedy}"
            )


def read_instances_file(path: Path, image_id_of: Callable[[dict[str, Any]], str] | None = None) -> InstancesFile:
    """Reads and checks an instances JSON.

    Args:
        image_id_of: makes the id of an image from its JSON object, or raises ValueError; None: COCO's 12 digits.

    Raises:
        UserError: the file does not exist, is no JSON, lacks one of its three lists, or has entries that are wrong or
            refer to nothing; they are named by their ids.
    """
    content = read_json_object(path, _NOUN, LIMIT)
    lists = {}
    for key in ("images", "annotations", "categories"):
        entries = content.get(key)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(
                f"{_NOUN} {path} cannot be read as COCO instances: it has no list {key!r}. Take an instances_*.json, "
                "which has the lists images, annotations and categories"
            )
        lists[key] = entries
    faults = Faults(path, "Correct or remove them")
    columns, names = _categories(lists["categories"], faults)
    images, keys = _images(lists["images"], image_id_of or _coco_id, faults)
    annotations = []
    for place, item in enumerate(lists["annotations"]):
        entry = f"annotation {item['id']!r}" if "id" in item else f"annotation without an id, number {place + 1}"
        image_key = _key(item.get("image_id"))
        category = whole(item.get("category_id"))
        if image_key not in keys:
            faults.add(entry, f"image_id {item.get('image_id')!r} is the id of no image")
        elif category not in columns:
            reason = f"category_id {item.get('category_id')!r} is the id of no category"
            faults.add(f"{entry} of image {item['image_id']!r}", reason)
        else:
            number = whole(item.get("id"))
            annotations.append(
                Annotation(place if number is None else number, columns[category], keys[image_key], item)
            )
    faults.check()
    return InstancesFile(path, names, images, annotations)


def whole(value: Any) -> int | None:
    """A whole number, also where it is written 9.0; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 1 << 53 else None


def category_names(file: InstancesFile) -> list[str]:
    """The classes of a file, by ascending category id.

    Raises:
        UserError: a category has no name, or as `check_classes`.
    """
    names = [name for name in file.names if name is not None]
    if len(names) < len(file.names):
        raise UserError(f"{_NOUN} {file.path} has categories without a name; give each a name")
    check_classes(names, f"{_NOUN} {file.path}")
    return names


def instance_labels(path: Path, classes: Sequence[str], dataset: str) -> dict[str, np.ndarray]:
    """Multi-hot labels, float32 (C,), by image id: a class is present when the image has any annotation of it, crowds
    included.

    Args:
        dataset: for ``coco14`` images are known by their number in the file, else by the name of their file.

    Raises:
        UserError: as `read_instances_file`; or the categories are not the data set's classes.
    """
    by_name = None if dataset == "coco14" else lambda image: canonical_id(_file_name(image), dataset)
    file = read_instances_file(path, by_name)
    names = file.names
    columns = list(range(len(names)))
    if None not in names:
        others = sorted(set(map(str, names)) ^ set(classes))
        if others:
            raise UserError(
                f"the categories of {path} are not the classes of the data set; the two differ in {preview(others)}. "
                "Name the classes in a file: data.classes=FILE"
            )
        columns = [list(classes).index(str(name)) for name in category_names(file)]
    elif len(names) != len(classes):
        raise UserError(
            f"{path} has {len(names)} categories, but the data set has {len(classes)} classes. Is it the file of "
            "another data set? Name its classes in a file: data.classes=FILE"
        )
    labels = {image_id: np.zeros(len(classes), np.float32) for image_id in file.images}
    for annotation in file.annotations:
        labels[annotation.image_id][columns[annotation.category]] = 1
    return labels


def _categories(items: Sequence[dict[str, Any]], faults: Faults) -> tuple[dict[int, int], list[str | None]]:
    """Class indices by category id, and the names by class index."""
    by_id: dict[int, str | None] = {}
    for item in items:
        number = whole(item.get("id"))
        name = item.get("name")
        if number is None or number in by_id:
            reason = "is no whole number" if number is None else "is there more than once"
            faults.add(f"category {name!r}", f"its id {item.get('id')!r} {reason}")
        elif name is not None and not isinstance(name, str):
            faults.add(f"category {number}", f"its name {name!r} is no text")
        else:
            by_id[number] = name
    return {number: i for i, number in enumerate(sorted(by_id))}, [by_id[number] for number in sorted(by_id)]


def _images(
    items: Iterable[dict[str, Any]], image_id_of: Callable[[dict[str, Any]], str], faults: Faults
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The images by id, and these ids by the file's own."""
    images: dict[str, dict[str, Any]] = {}
    keys: dict[str, str] = {}
    for item in items:
        entry = f"image {item.get('id')!r}"
        key = _key(item.get("id"))
        if not key:
            faults.add(entry, "its id is neither a number nor a text")
            continue
        try:
            image_id = image_id_of(item)
        except ValueError as error:
            faults.add(entry, str(error))
            continue
        if key in keys or image_id in images:
            faults.add(entry, f"{image_id} is there more than once")
        images[image_id] = item
        keys[key] = image_id
    return images, keys


def _key(value: Any) -> str:
    """The id of an image as a text, by which annotations refer to it; empty for a value of another kind."""
    number = whole(value)
    return str(number) if number is not None else value.strip() if isinstance(value, str) else ""


def _coco_id(image: dict[str, Any]) -> str:
    return canonical_id(_key(image["id"]), "coco14")


def _file_name(image: dict[str, Any]) -> str:
    name = image.get("file_name")
    if not isinstance(name, str):
        raise ValueError("it has no file_name")
    return PurePosixPath(name).name
