"""Instances JSON in COCO's format: its content, and index masks painted from its regions."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as rle_tools

from common.data.classes import IGNORE_LABEL
from common.data.lists import canonical_id
from common.run.errors import UserError, preview


@dataclass(frozen=True)
class Region:
    """One annotation: class index, COCO's segmentation (polygons or run lengths), crowd flag and id."""

    category: int
    segmentation: Any
    is_crowd: bool
    number: int


@dataclass(frozen=True)
class Instances:
    """The content of an instances JSON, by image id (12 digits).

    Attributes:
        classes: names by ascending category id; their place is the class index.
        files: image file names.
        sizes: (H, W).
        regions: annotations, for images that have any.
    """

    path: Path
    classes: list[str]
    files: dict[str, str]
    sizes: dict[str, tuple[int, int]]
    regions: dict[str, list[Region]]


def read_instances(path: Path) -> Instances:
    """Reads an instances JSON.

    Raises:
        UserError: the file does not exist, or is not of that form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        categories = sorted(content["categories"], key=lambda category: category["id"])
        index = {category["id"]: i for i, category in enumerate(categories)}
        images = {canonical_id(image["id"], "coco14"): image for image in content["images"]}
        regions: dict[str, list[Region]] = {}
        for item in content["annotations"]:
            region = Region(index[item["category_id"]], item["segmentation"], bool(item.get("iscrowd", 0)), item["id"])
            regions.setdefault(canonical_id(item["image_id"], "coco14"), []).append(region)
        return Instances(
            path, [category["name"] for category in categories],
            {image_id: image["file_name"] for image_id, image in images.items()},
            {image_id: (image["height"], image["width"]) for image_id, image in images.items()}, regions,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"no instances JSON at {path} ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as COCO instances ({type(error).__name__}: {error})") from error


def paint_mask(size: tuple[int, int], regions: Sequence[Region], ignore_crowds: bool = False) -> tuple[np.ndarray, int]:
    """Paints an index mask: crowds first, then from large to small, equal areas by annotation id.

    Args:
        size: (H, W).
        ignore_crowds: Whether crowd regions become 255 instead of their class.

    Returns:
        uint8 (H, W) of 0 or class index + 1, and the number of polygons with too few points to be painted.
    """
    mask = np.zeros(size, dtype=np.uint8)
    skipped = 0
    painted = []
    for region in regions:
        codes, short = _run_lengths(region.segmentation, *size)
        skipped += short
        if codes:
            code = rle_tools.merge(codes)
            painted.append(((not region.is_crowd, -float(rle_tools.area(code)), region.number), region, code))
    for _, region, code in sorted(painted, key=lambda item: item[0]):
        value = IGNORE_LABEL if region.is_crowd and ignore_crowds else region.category + 1
        mask[rle_tools.decode(code) > 0] = value
    return mask, skipped


def _run_lengths(segmentation: Any, height: int, width: int) -> tuple[list[dict], int]:
    """pycocotools' run lengths of polygons, raw counts or packed counts; and the number of unusable polygons."""
    if isinstance(segmentation, dict):
        packed = isinstance(segmentation["counts"], str | bytes)
        return [segmentation if packed else rle_tools.frPyObjects(segmentation, height, width)], 0
    polygons = [polygon for polygon in segmentation if len(polygon) >= 6]  # pycocotools takes 4 numbers for a box
    return rle_tools.frPyObjects(polygons, height, width) if polygons else [], len(segmentation) - len(polygons)


def link_images(source: Path, files: dict[str, str], targets: dict[str, Path]) -> str:
    """Makes images known under the data set's own file names: by symbolic links, or copies where there are no links.

    Args:
        files: image id -> file name in the folder ``source``.
        targets: image id -> path to make.

    Returns:
        The numbers of links and copies made, as text.

    Raises:
        UserError: images are missing in ``source``.
    """
    paths = {image_id: source / PurePosixPath(name).name for image_id, name in files.items()}
    missing = [path for path in paths.values() if not path.is_file()]
    if missing:
        raise UserError(f"{len(missing)} of {len(paths)} images are missing in {source}: {preview(missing, 3)}")
    done = {"links": 0, "copies": 0}
    for image_id, target in targets.items():
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            done[_link(paths[image_id].resolve(), target)] += 1
    return ", ".join(f"{count} {kind}" for kind, count in done.items() if count) or "all images were there"


def _link(source: Path, target: Path) -> str:
    try:
        target.symlink_to(source)
        return "links"
    except OSError:  # a file system without links; the caller's message tells of the copies
        shutil.copyfile(source, target)
        return "copies"


def check_rules(path: Path, rules: dict) -> None:
    """Refuses to complete masks that were painted by other rules or from another JSON.

    Raises:
        UserError: ``path`` holds other rules.
    """
    if path.is_file() and json.loads(path.read_text()) != rules:
        raise UserError(
            f"the masks in {path.parent} were painted from another JSON or with another --crowd; add --overwrite"
        )
