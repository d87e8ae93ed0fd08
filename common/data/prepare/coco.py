"""Instances JSON in COCO's format: its images and regions, checked, and index masks painted from the regions.

pycocotools' C code ends the process on coordinates that are no numbers or very large, and on run lengths that do not
fill their image. Every region is therefore checked once, when the file is read.
"""

import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as rle_tools

from common.data.classes import IGNORE_LABEL
from common.data.instances import Faults, category_names, read_instances_file, whole
from common.data.rle import run_lengths
from common.run.errors import UserError, preview
from common.run.text import read_json

FARTHEST = 100_000.0  # pixels; coordinates may lie outside the image, and the C code walks every pixel of an outline
LARGEST = 1 << 27  # pixels of an image
_POINT_NUMBERS = 6  # fewer are no polygon; pycocotools takes 4 numbers for a box


@dataclass(frozen=True)
class Region:
    """One annotation: class index, COCO's segmentation (polygons or run lengths), crowd flag and id."""

    category: int
    segmentation: Any
    is_crowd: bool
    number: int


@dataclass(frozen=True)
class Outline:
    """A segmentation that has been checked.

    Attributes:
        polygons: each x, y, x, y, ... in pixels, of three points or more.
        counts: lengths of the runs of 0 and 1, column by column, if there are no polygons.
        short: polygons of fewer points, which are left out.
    """

    polygons: list[list[float]]
    counts: list[int]
    short: int = 0


@dataclass(frozen=True)
class Instances:
    """The content of an instances JSON, by image id (12 digits).

    Attributes:
        classes: names by ascending category id; their place is the class index.
        files: image file names, which may have folders.
        sizes: (H, W).
        regions: annotations, for images that have any.
    """

    path: Path
    classes: list[str]
    files: dict[str, str]
    sizes: dict[str, tuple[int, int]]
    regions: dict[str, list[Region]]

    def has_segmentations(self) -> bool:
        """Whether masks can be painted: a file for detection has boxes alone."""
        return not self.regions or any(region.segmentation for of_image in self.regions.values() for region in of_image)


def read_instances(path: Path) -> Instances:
    """Reads and checks an instances JSON.

    Raises:
        UserError: the file does not exist, is not of that form, or has images or annotations that cannot be used; they
            are named by their ids.
    """
    file = read_instances_file(path)
    classes = category_names(file)
    faults = Faults(path, "Correct or remove them; image labels alone need no segmentation at all")
    files: dict[str, str] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for image_id, image in file.images.items():
        height, width = whole(image.get("height")), whole(image.get("width"))
        name = image.get("file_name")
        if height is None or width is None or min(height, width) < 1 or height * width > LARGEST:
            faults.add(
                f"image {image['id']!r}", f"height {image.get('height')!r} and width {image.get('width')!r} are no size"
            )
        elif not isinstance(name, str) or not _is_inside(name):
            faults.add(f"image {image['id']!r}", f"file_name {name!r} is no file below the folder of the images")
        else:
            files[image_id] = name
            sizes[image_id] = height, width
    regions: dict[str, list[Region]] = {}
    for annotation in file.annotations:
        size = sizes.get(annotation.image_id)
        segmentation = annotation.content.get("segmentation")
        try:
            if size:
                outline(segmentation, size)
        except ValueError as error:
            entry = f"annotation {annotation.content.get('id')!r} of image {annotation.content['image_id']!r}"
            faults.add(entry, str(error))
        is_crowd = bool(annotation.content.get("iscrowd", 0))
        region = Region(annotation.category, segmentation, is_crowd, annotation.number)
        regions.setdefault(annotation.image_id, []).append(region)
    faults.check()
    return Instances(path, classes, files, sizes, regions)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts and name.isprintable()


def outline(segmentation: Any, size: tuple[int, int]) -> Outline:
    """Checks COCO's segmentation for an image of ``size`` (H, W), and unpacks it; one that is missing paints nothing.

    Raises:
        ValueError: it is damaged, or of another image size.
    """
    if segmentation is None:
        return Outline([], [])
    if isinstance(segmentation, dict):
        return Outline([], run_lengths(segmentation, size).tolist())
    if not isinstance(segmentation, list):
        raise ValueError(f"its segmentation is {type(segmentation).__name__}, neither polygons nor run lengths")
    polygons = [_polygon(polygon) for polygon in segmentation]
    long = [polygon for polygon in polygons if len(polygon) >= _POINT_NUMBERS]
    return Outline(long, [], len(polygons) - len(long))


def _polygon(values: Any) -> list[float]:
    if not isinstance(values, list):
        raise ValueError("its segmentation is one list of numbers; a list of polygons is needed: [[x, y, x, y, ...]]")
    if len(values) % 2:
        raise ValueError(f"a polygon has {len(values)} numbers, which are no pairs of x and y")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"a polygon has the coordinate {value!r}, which is no number")
        if abs(value) > FARTHEST:
            raise ValueError(f"a polygon has the coordinate {value:g}, which is far outside of any image")
    return [float(value) for value in values]


def paint_mask(
    size: tuple[int, int], regions: Sequence[Region], ignore_crowds: bool = False
) -> tuple[np.ndarray, Counter[str]]:
    """Paints an index mask: crowds first, then from large to small, equal areas by annotation id.

    Args:
        size: (H, W).
        ignore_crowds: Whether crowd regions become 255 instead of their class.

    Returns:
        uint8 (H, W) of 0 or class index + 1, and a count of all that paints nothing, by the reason.

    Raises:
        UserError: a segmentation cannot be used.
    """
    mask = np.zeros(size, dtype=np.uint8)
    unpainted: Counter[str] = Counter()
    painted = []
    for region in regions:
        try:
            checked = outline(region.segmentation, size)
        except ValueError as error:
            raise UserError(f"annotation {region.number} cannot be painted: {error}; correct or remove it") from error
        unpainted["polygons of fewer than three points"] += checked.short
        if not checked.polygons and not sum(checked.counts[1::2]):
            unpainted["annotations without a segmentation"] += not checked.short
            continue
        counts = {"size": list(size), "counts": checked.counts}
        codes = rle_tools.frPyObjects(checked.polygons, *size) if checked.polygons else []
        code = rle_tools.merge(codes) if codes else rle_tools.frPyObjects(counts, *size)
        area = float(rle_tools.area(code))
        unpainted["annotations that cover no pixel"] += not area
        painted.append(((not region.is_crowd, -area, region.number), region, code))
    for _, region, code in sorted(painted, key=lambda item: item[0]):
        value = IGNORE_LABEL if region.is_crowd and ignore_crowds else region.category + 1
        mask[rle_tools.decode(code) > 0] = value
    return mask, +unpainted


def link_images(source: Path, files: dict[str, str], targets: dict[str, Path]) -> str:
    """Makes images known under the data set's own file names: by symbolic links, or copies where there are no links.

    Args:
        files: image id -> file name below the folder ``source``; its folders may be left out if the name is unique.
        targets: image id -> path to make.

    Returns:
        The numbers of links and copies made, as text.

    Raises:
        UserError: images are missing in ``source``.
    """
    names = Counter(PurePosixPath(name).name for name in files.values())
    paths = {}
    for image_id, name in files.items():
        flat = source / PurePosixPath(name).name
        is_flat = names[flat.name] == 1 and not (source / name).is_file()
        paths[image_id] = flat if is_flat else source / name
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
    if path.is_file() and read_json(path, "the record of the masks") != rules:
        raise UserError(
            f"the masks in {path.parent} were painted from another JSON or with another --crowd; add --overwrite"
        )
