"""The data check of CUB-200-2011 and sets in its layout: tables, images, boxes, balance of the classes."""

from pathlib import Path

import numpy as np

from common.data.cub import OFFICIAL_CLASSES, OFFICIAL_IMAGES, CUBConfig, CUBImages, read_tables
from common.data.images import read_image
from common.data.prepare.report import Table
from common.run.errors import UserError
from common.run.progress import map_in_processes

OUTSIDE = 0.1  # largest share of a box beyond the image's edge that is clipped; a box with a larger one must be wrong


def check_cub(table: Table, root: Path, workers: int) -> int:
    """Checks both splits.

    Returns:
        The number of classes; 0 if the tables cannot be used.

    Raises:
        UserError: the folder does not exist.
    """
    table.title("tables")
    try:
        tables = read_tables(root)
    except UserError as error:
        if not root.is_dir():
            raise
        table.row("tables", "unusable", "PROBLEM", [error])
        return 0
    table.row("tables", "readable")
    _count(table, "classes", len(tables.classes), OFFICIAL_CLASSES)
    strays = [
        f"{path}: {tables.classes[tables.targets[image_id]]}"
        for image_id, path in tables.images.items()
        if path.parent.name != tables.classes[tables.targets[image_id]]
    ]
    table.offence("images in the folder of another class", strays, "note")
    for split in OFFICIAL_IMAGES:
        table.title(f"split {split}")
        if (split == "train") in tables.is_training.values():
            _check_split(table, CUBImages(CUBConfig(str(root)), split, require_images=False), workers)
        else:
            table.row("images", 0, "PROBLEM", ["train_test_split.txt assigns none to this split"])
    return len(tables.classes)


def _count(table: Table, name: str, found: int, official: int) -> None:
    table.row(name, found, "ok" if found == official else "note", [f"the official data set has {official}"])


def _check_split(table: Table, images: CUBImages, workers: int) -> None:
    sizes = map_in_processes(_image_size, images.images, workers, f"split {images.list_name}")
    _count(table, "images", len(images), OFFICIAL_IMAGES[images.list_name])
    table.offence("missing images", [path for path, size in zip(images.images, sizes, strict=True) if size is None])
    table.offence("unreadable images", [size for size in sizes if isinstance(size, str)])
    beyond: list[str] = []
    outside: list[str] = []
    for image_id, size, box in zip(images.ids, sizes, images.boxes.tolist(), strict=True):
        if not isinstance(size, tuple):
            continue
        share = _share_outside(size, box)
        if share > 0:
            text = f"{image_id}: x, y, width, height {box} in {size[1]} x {size[0]} pixels"
            (outside if share > OUTSIDE else beyond).append(text)
    table.offence(f"boxes with over {OUTSIDE:.0%} outside their image", outside)
    table.offence("boxes that reach over the edge", beyond, "note")
    of_class = np.bincount(images.targets, minlength=len(images.classes))
    table.row("images of a class, fewest and most", f"{of_class.min()}, {of_class.max()}")
    table.offence("classes without an image", [images.classes[i] for i in np.flatnonzero(of_class == 0)], "note")


def _image_size(path: Path) -> tuple[int, int] | str | None:
    """(H, W) of a decoded image; the reason why it cannot be decoded; None without a file."""
    if not path.is_file():
        return None
    try:
        image = read_image(path)
    except UserError as error:
        return str(error)
    return image.height, image.width


def _share_outside(size: tuple[int, int], box: list[float]) -> float:
    """The share of a box outside an image of size (H, W); 0 where less than a pixel reaches over."""
    x, y, width, height = box
    if min(x, y, size[1] - x - width, size[0] - y - height) > -1:
        return 0.0
    inside = max(min(x + width, size[1]) - max(x, 0), 0) * max(min(y + height, size[0]) - max(y, 0), 0)
    return 1 - inside / (width * height)
