"""Data sets behind one interface: id, image, multi-hot label, optional mask.

VOC 2012, COCO 2014 and a folder of the user's own differ only in where things lie (`LAYOUTS`) and how ids are spelled
(`common.data.lists`).
"""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from common.config import option
from common.data.classes import COCO14, VOC12
from common.data.labels import csv_classes, read_labels
from common.data.lists import IMAGE_SUFFIXES, LIST_DIR, find_list, read_list
from common.errors import UserError, preview


@dataclass(frozen=True)
class Layout:
    """Where a data set keeps its files, relative to its root; ``{id}`` and ``{split}`` are filled in."""

    title: str
    image: str
    mask: str
    classes: tuple[str, ...]
    labels: tuple[str, ...]  # tried in this order when data.labels is "auto"
    provided_by: str


LAYOUTS = {
    "voc12": Layout(
        "PASCAL VOC 2012", "JPEGImages/{id}.jpg", "SegmentationClass/{id}.png", VOC12, ("Annotations",),
        "python scripts/prepare_data.py voc",
    ),
    "coco14": Layout(
        "MS COCO 2014",
        "{split}2014/COCO_{split}2014_{id}.jpg", "SegmentationClass/{split}2014/COCO_{split}2014_{id}.png", COCO14,
        ("labels_{split}2014.npz", "cls_labels_coco.npy", "annotations/instances_{split}2014.json"),
        "python scripts/prepare_data.py coco",
    ),
    "folder": Layout(
        "folder of images", "images/{id}.*", "masks/{id}.png", (), ("labels.csv",),
        "docs/data.md tells how to lay it out",
    ),
}  # fmt: skip


@dataclass
class DataConfig:
    """Which images, labels and masks."""

    dataset: str = option("voc12", "Layout and id spelling of the data set.", flag="--data-set", choices=tuple(LAYOUTS))
    root: str = option("data/VOC2012", "Folder of the data set.", flag=("--data-path", "--data_path"))
    labels: str = option(
        "auto",
        "Image labels: folder of VOC XML, cls_labels.npy, .npz, instances .json or .csv; auto tries the usual places.",
    )
    classes: str = option(
        "", "Text file, one foreground class a line, for data sets with classes of their own; empty: the official ones."
    )
    image: str = option(
        "", "Pattern of the image files under root, such as 'JPEGImages/{id}.jpg'; empty: the data set's own."
    )
    mask: str = option(
        "", "Pattern of the mask files under root, for validation and evaluation; empty: the data set's own."
    )
    split: str = option(
        "auto", "COCO's folder, train or val; auto takes it from the list's name.", choices=("auto", "train", "val")
    )


class ImageSet:
    """The images of one list, with labels and masks. Files are only opened when asked for.

    Attributes:
        ids: image ids in list order.
        labels: float32 (N, C), or None where the set was opened without labels.
        classes: C foreground class names; none if the set was opened without labels and nothing names them.
    """

    def __init__(
        self, config: DataConfig, list_name: str, with_labels: bool = True, require_images: bool = True
    ) -> None:
        """Opens the list and labels, and checks that every image is there.

        Args:
            list_name: A list file, or the name of one; ``all`` takes every image in the data set's image folder.
            require_images: Off for the data check, which wants to name every missing image itself.

        Raises:
            UserError: the data set, the list, labels or images are missing; the message names what provides them.
        """
        self.config, self.layout, self.root = config, LAYOUTS[config.dataset], Path(config.root)
        self.list_name = list_name
        if not self.root.is_dir():
            raise UserError(
                f"no {self.layout.title} at {self.root} (from {Path.cwd()}). Get it with: {self.layout.provided_by}; "
                "or name the place where it is: data.root=/path/to/it"
            )
        self.classes = self._class_names(with_labels)
        self.split = config.split if config.split != "auto" else ("val" if "val" in Path(list_name).stem else "train")
        if list_name == "all":
            self.ids = sorted(self._image_index())
        else:
            self.ids = read_list(find_list(list_name, config.dataset, self.root), config.dataset)
        self.images = self._image_paths()
        if require_images:
            self._refuse_missing()
        self.labels = self._labels() if with_labels else None
        self._kept: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def labelled(self, limit: int = 0) -> "ImageSet":
        """The images that have any label; the first so many of them if there is a limit."""
        chosen = np.flatnonzero(self.labels.any(axis=1))[: limit or None]
        part = copy.copy(self)
        part.ids, part.images = ([values[index] for index in chosen] for values in (self.ids, self.images))
        part.labels = self.labels[chosen]
        return part

    def load_image(self, index: int) -> Image.Image:
        """The image as RGB, decoded.

        Raises:
            UserError: the file is damaged; it is named.
        """
        return read_image(self.images[index]) if self._kept is None else Image.fromarray(self._kept[index])

    def keep_in_memory(self, prepare: Callable[[Image.Image], Image.Image], threads: int) -> int:
        """Decodes all images now and keeps what ``prepare`` makes of each, which `load_image` then gives.

        Forked loader workers share the memory; every process of a run has its own.

        Args:
            prepare: RGB image to RGB image, without random draws.

        Returns:
            How many bytes are held.

        Raises:
            UserError: a file is damaged; it is named.
        """
        with ThreadPoolExecutor(threads) as pool:
            self._kept = list(pool.map(lambda path: np.asarray(prepare(read_image(path))), self.images))
        return sum(pixels.nbytes for pixels in self._kept)

    def mask_path(self, image_id: str) -> Path:
        """Where the ground-truth mask of an image is, or would be."""
        return self.root / self._fill(self.config.mask or self.layout.mask, image_id)

    def load_mask(self, index: int) -> np.ndarray:
        """The ground-truth mask, uint8 (H, W): 0 background, class index + 1, 255 ignore."""
        return read_mask(self.mask_path(self.ids[index]))

    def _fill(self, pattern: str, image_id: str = "") -> str:
        return pattern.replace("{split}", self.split).replace("{id}", image_id)

    def _image_paths(self) -> list[Path]:
        pattern = self._fill(self.config.image or self.layout.image, "{id}")
        if pattern.endswith(".*"):
            index = self._image_index()
            return [index.get(image_id, self.root / pattern.replace("{id}", image_id)) for image_id in self.ids]
        return [self.root / pattern.replace("{id}", image_id) for image_id in self.ids]

    def _refuse_missing(self) -> None:
        paths = dict.fromkeys(self.images)
        present = {path for folder in {path.parent for path in paths} if folder.is_dir() for path in folder.iterdir()}
        missing = [path for path in paths if path not in present]
        if missing:
            raise UserError(
                f"{len(missing)} of the {len(paths)} images of list {self.list_name!r} are missing: "
                f"{preview(missing, 3)}. Get the data set with: {self.layout.provided_by}; see what is there with: "
                "python scripts/check_data.py"
            )

    def _image_index(self) -> dict[str, Path]:
        """All files of the image folder that fit the pattern, by id; ``.*`` stands for any extension of an image."""
        pattern = self.root / self._fill(self.config.image or self.layout.image, "{id}")
        folder, (before, _, after) = pattern.parent, pattern.name.partition("{id}")
        if not folder.is_dir():
            raise UserError(f"no image folder {folder}; {self.layout.provided_by}")
        found = {}
        for path in sorted(folder.iterdir()):
            ending = path.suffix if after == ".*" and path.suffix.lower() in IMAGE_SUFFIXES else after
            if path.name.startswith(before) and path.name.endswith(ending):
                found[path.name[len(before) : -len(ending) or None]] = path
        return found

    def _class_names(self, are_needed: bool) -> list[str]:
        try:
            return class_names(self.config)
        except UserError:
            if are_needed:
                raise
            return []

    def _labels(self) -> np.ndarray:
        table = read_labels(self._labels_path(), self.ids, self.classes, self.config.dataset)
        return np.stack([table[image_id] for image_id in self.ids])

    def _labels_path(self) -> Path:
        if self.config.labels != "auto":
            given = Path(self._fill(self.config.labels))
            return given if given.exists() else self.root / given
        shipped = LIST_DIR / self.config.dataset / "labels.npz"
        if shipped.is_file() and not self.config.classes and not self._outside(shipped):
            return shipped
        candidates = [self.root / self._fill(name) for name in self.layout.labels]
        for candidate in candidates:
            if candidate.exists():
                return candidate
        raise UserError(
            f"no image labels for {self.layout.title}: looked for {', '.join(map(str, candidates))}. "
            f"Make them with: {self.layout.provided_by}; or set data.labels"
        )

    def _outside(self, shipped: Path) -> bool:
        with np.load(shipped, allow_pickle=False) as data:
            return bool(set(self.ids) - {name.decode() for name in data["names"]})


def class_names(config: DataConfig) -> list[str]:
    """Foreground class names in label order.

    Raises:
        UserError: the class file is missing or empty.
    """
    if config.classes:
        try:
            names = [
                line.strip() for line in Path(config.classes).read_text(encoding="utf-8").splitlines() if line.strip()
            ]
        except OSError as error:
            raise UserError(f"data.classes: {config.classes} cannot be read: {error.strerror}") from error
        if not names:
            raise UserError(f"data.classes: {config.classes} names no class")
        return names
    if config.dataset == "folder":
        labels = Path(config.root) / "labels.csv" if config.labels == "auto" else Path(config.labels)
        return csv_classes(labels if labels.exists() else Path(config.root) / labels)
    return list(LAYOUTS[config.dataset].classes)


def read_image(path: Path) -> Image.Image:
    """An RGB image, decoded.

    Raises:
        UserError: missing, damaged or truncated.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"the image {path} cannot be decoded ({error}). Is it complete? python scripts/check_data.py finds all "
            "such files."
        ) from error


def read_mask(path: Path) -> np.ndarray:
    """A label mask, uint8 (H, W), from a palette or grey PNG; palette indices are read as they are.

    Raises:
        UserError: missing, damaged, or an image of colours instead of label indices.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L"):
                raise UserError(
                    f"the mask {path} is of mode {image.mode}; masks are PNGs with one label index a pixel (palette or "
                    "grey)"
                )
            return np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"the mask {path} cannot be read: {error}") from error
