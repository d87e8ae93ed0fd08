"""CUB-200-2011, and sets in its layout: images of one object each, with its class and its bounding box.

Five tables lie beside the folder ``images/``, with one line per image (or class) and columns separated by spaces:

    images.txt                image_id and path under images/: 1 001.Black_footed_Albatross/Black_..._0046_18.jpg
    classes.txt               class_id and name, ids from 1:   1 001.Black_footed_Albatross
    image_class_labels.txt    image_id and class_id
    train_test_split.txt      image_id and 1 for a training image, 0 for a test image
    bounding_boxes.txt        image_id, x, y, width and height, in pixels from the upper left corner
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from PIL import Image

from common.data.dataset import read_image
from common.data.lists import IMAGE_SUFFIXES, canonical_id
from common.run.config import option
from common.run.errors import UserError, preview
from common.run.text import read_lines

TITLE = "CUB-200-2011"
PROVIDED_BY = "python scripts/prepare_data.py cub"
OFFICIAL_CLASSES = 200
OFFICIAL_IMAGES = {"train": 5994, "test": 5794}
TABLES = ("images.txt", "classes.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt")

Box = tuple[float, float, float, float]
Value = TypeVar("Value")


@dataclass
class CUBConfig:
    """The folder of the data set."""

    root: str = option(
        "data/CUB_200_2011", "Folder of CUB-200-2011, with images.txt and images/.", flag=("--data-path", "--data_path")
    )

    def needs(self, lists: Sequence[str]) -> Iterator[Callable[[], str]]:
        """Checks of the folder and its tables; the lists are splits, of which the tables tell."""
        yield self.require_root
        if Path(self.root).is_dir():
            yield self.require_tables

    def require_root(self) -> str:
        """Makes sure that the folder is there.

        Raises:
            UserError: it is not; the message names what provides it.
        """
        root = Path(self.root)
        if not root.is_dir():
            raise UserError(
                f"no {TITLE} at {root} (from {Path.cwd()}). Get it with: {PROVIDED_BY}; or name the place where it is: "
                "data.root=/path/to/it"
            )
        return str(root)

    def require_tables(self) -> str:
        """Makes sure that the folder is that of such a set: that tables and images are in it.

        Raises:
            UserError: some are missing; they are named.
        """
        missing = [name for name in (*TABLES, "images") if not (Path(self.root) / name).exists()]
        if missing:
            raise UserError(
                f"{self.root} is there, but is no folder of {TITLE}: it has no {', '.join(missing)}. data.root is the "
                f"folder that holds them; {PROVIDED_BY}"
            )
        return f"{len(TABLES)} tables"


@dataclass(frozen=True)
class CUBTables:
    """The contents of the tables by image id, in the order of images.txt.

    Attributes:
        images: paths of the files.
        targets: class indices from 0.
        is_training: whether an image belongs to the training split.
        boxes: x, y, width, height in pixels.
        classes: names in the order of their ids.
    """

    images: dict[int, Path]
    targets: dict[int, int]
    is_training: dict[int, bool]
    boxes: dict[int, Box]
    classes: list[str]


def check_split(name: str) -> None:
    """Checks the name of a split.

    Raises:
        UserError: there is none of that name.
    """
    if name not in OFFICIAL_IMAGES:
        raise UserError(f"{TITLE} has no split {name!r}; its splits are {', '.join(OFFICIAL_IMAGES)}")


class CUBImages:
    """The images of a split; satisfies `common.data.dataset.TrainingImages`. Files are only opened when asked for.

    Attributes:
        ids: the file names without folder and extension, in the order of images.txt.
        images: paths of the files.
        targets: class indices, int64 (N,).
        labels: the same one-hot, float32 (N, C).
        boxes: x, y, width, height in pixels of the original image, float32 (N, 4).
        classes: C names, as in classes.txt.
        list_name: the split.
    """

    def __init__(self, config: CUBConfig, split: str, require_images: bool = True) -> None:
        """Reads the tables, and checks that every image of the split is there.

        Args:
            split: ``train`` or ``test``.
            require_images: Off for the data check, which names every missing image itself.

        Raises:
            UserError: the folder, a table or images are missing, or the tables are damaged or contradict one another;
                the message names what provides them, or the lines that are wrong.
        """
        check_split(split)
        self.config, self.root, self.list_name = config, Path(config.root), split
        tables = read_tables(self.root)
        chosen = [image_id for image_id, trains in tables.is_training.items() if trains == (split == "train")]
        if not chosen:
            raise UserError(f"{self.root / 'train_test_split.txt'} assigns no image to the split {split!r}")
        self.classes = tables.classes
        self.images = [tables.images[image_id] for image_id in chosen]
        self.ids = [path.stem for path in self.images]
        self.targets = np.array([tables.targets[image_id] for image_id in chosen], dtype=np.int64)
        self.labels = np.eye(len(self.classes), dtype=np.float32)[self.targets]
        self.boxes = np.array([tables.boxes[image_id] for image_id in chosen], dtype=np.float32)
        missing = [path for path in self.images if not path.is_file()] if require_images else []
        if missing:
            raise UserError(
                f"{len(missing)} of the {len(self)} images of the split {split!r} are missing: {preview(missing, 3)}. "
                f"Get the data set with: {PROVIDED_BY}; find missing files with: "
                "python scripts/check_data.py --data cub"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def load_image(self, index: int) -> Image.Image:
        """The image as RGB, decoded.

        Raises:
            UserError: the file is damaged; it is named.
        """
        return read_image(self.images[index])

    def require_labels(self, every: bool = True) -> None:
        """As `common.data.dataset.TrainingImages.require_labels`."""
        absent = np.flatnonzero(~self.labels.any(axis=0))
        if every and len(absent):
            raise UserError(
                f"no image of the split {self.list_name!r} in {self.root} has the class "
                f"{preview((self.classes[i] for i in absent), 3)}: remove it from classes.txt, or add images"
            )


def read_tables(root: Path) -> CUBTables:
    """Reads and cross-checks the five tables.

    Raises:
        UserError: a table is missing, has unusable lines (they are named), or lacks ids that another one has.
    """
    CUBConfig(str(root)).require_root()
    paths = _read(root / "images.txt", "image_id path", _image_path)
    stems = Counter(PurePosixPath(path).stem for path in paths.values())
    repeated = [stem for stem, count in stems.items() if count > 1]
    if repeated:
        raise UserError(
            f"{root / 'images.txt'} has images whose file names differ in folder or extension only; they would share "
            f"their results: {preview(repeated)}"
        )
    classes = _read(root / "classes.txt", "class_id name", str)
    if sorted(classes) != list(range(1, len(classes) + 1)) or len(set(classes.values())) < len(classes):
        raise UserError(f"{root / 'classes.txt'}: class ids must be 1 to {len(classes)}, each with a name of its own")
    labels = _read_for(paths, root / "image_class_labels.txt", "image_id class_id", _count)
    outside = [f"image {image_id} has {label}" for image_id, label in labels.items() if label > len(classes)]
    if outside:
        raise UserError(
            f"{root / 'image_class_labels.txt'}: {len(outside)} class id(s) are not in classes.txt, which has 1 to "
            f"{len(classes)}: {preview(outside)}"
        )
    return CUBTables(
        {image_id: root / "images" / path for image_id, path in paths.items()},
        {image_id: label - 1 for image_id, label in labels.items()},
        _read_for(paths, root / "train_test_split.txt", "image_id is_training", _flag),
        _read_for(paths, root / "bounding_boxes.txt", "image_id x y width height", _box),
        [classes[number] for number in sorted(classes)],
    )


def missing_files(root: Path) -> list[Path]:
    """Tables that are not there, or, when all of them are, images that are not there.

    Raises:
        UserError: a table is damaged.
    """
    missing = [root / name for name in TABLES if not (root / name).is_file()]
    if missing:
        return missing
    return [path for path in read_tables(root).images.values() if not path.is_file()]


def _read(path: Path, columns: str, parse: Callable[..., Value]) -> dict[int, Value]:
    """A table by its first column.

    Args:
        columns: Names of the columns; the last column may hold spaces.
        parse: Makes a value of the texts in the other columns, or raises ValueError.
    """
    if not path.is_file():
        raise UserError(
            f"no {path.name} in {path.parent}: is it the folder of {TITLE}? Get the data set with: {PROVIDED_BY}"
        )
    lines = read_lines(path, "the table")
    table: dict[int, Value] = {}
    wrong = []
    for number, line in enumerate(lines, start=1):
        cells = line.split(maxsplit=columns.count(" "))
        if not cells:
            continue
        try:
            if len(cells) <= columns.count(" "):
                raise ValueError(f"{len(cells)} column(s)")
            key, value = _count(cells[0]), parse(*(cell.strip() for cell in cells[1:]))
            if key in table:
                raise ValueError(f"{key} has a line already")
            table[key] = value
        except ValueError as error:
            wrong.append(f"line {number} ({line.strip()!r}): {error}")
    if wrong:
        raise UserError(f"{path} has {len(wrong)} line(s) that are no '{columns}': {preview(wrong)}")
    if not table:
        raise UserError(f"the table {path} is empty")
    return table


def _read_for(paths: Mapping[int, str], path: Path, columns: str, parse: Callable[..., Value]) -> dict[int, Value]:
    """A table with one line for each image, in the images' order."""
    table = _read(path, columns, parse)
    unknown = [image_id for image_id in table if image_id not in paths]
    if unknown:
        raise UserError(f"{path} has {len(unknown)} image id(s) that images.txt does not have: {preview(unknown)}")
    missing = [f"{image_id} ({paths[image_id]})" for image_id in paths if image_id not in table]
    if missing:
        raise UserError(f"{path} has no line for {len(missing)} of the {len(paths)} images: {preview(missing, 3)}")
    return {image_id: table[image_id] for image_id in paths}


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text)):
        raise ValueError(f"{text!r} is no id (1, 2, 3, ...)")
    return int(text)


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"{text!r} is neither 1 (training) nor 0 (test)")
    return text == "1"


def _image_path(text: str) -> str:
    path = PurePosixPath(text)
    canonical_id(text, "folder")  # refuses '..' and characters that no file name may have
    if path.is_absolute() or path.suffix.lower() not in IMAGE_SUFFIXES:
        raise ValueError(f"{text!r} is no path of an image under images/")
    return text


def _box(*cells: str) -> Box:
    x, y, width, height = map(float, cells)
    if not all(map(math.isfinite, (x, y, width, height))) or min(width, height) <= 0:
        raise ValueError("a box has a position, and a width and height above 0, in pixels")
    return x, y, width, height
