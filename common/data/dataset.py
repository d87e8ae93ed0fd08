"""Data sets behind one interface: id, image, labels, optional mask.

VOC 2012, COCO 2014 and a folder of the user's own differ only in where files are (`common.data.layout`) and how ids are
spelled (`common.data.lists`).
"""

import copy
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from common.data.classes import read_classes
from common.data.csv_labels import csv_classes
from common.data.images import ImageFile, ImageRules
from common.data.labels import foreign_names, read_label_table, require_classes
from common.data.layout import LAYOUTS, DataConfig, image_paths, mask_paths
from common.data.lists import LIST_DIR, entry_folders, read_list
from common.data.masks import read_mask
from common.run.errors import UserError, preview
from common.run.processes import say_once


class ListedImages(Protocol):
    """The images of a list, such as an `ImageSet`, or images without a data set."""

    @property
    def ids(self) -> list[str]:
        """Image ids."""

    @property
    def images(self) -> list[Path]:
        """Paths of the files."""

    @property
    def classes(self) -> list[str]:
        """C foreground class names; none where the images have no labels and no file names classes."""

    @property
    def labels(self) -> np.ndarray | None:
        """Multi-hot float32 (N, C), or None for images without labels."""

    @property
    def list_name(self) -> str:
        """The list or split of the images."""


class TrainingImages(ListedImages, Protocol):
    """The images of a training: `ImageSet`, `LabelledImages`, or `common.data.cub.CUBImages`."""

    def __len__(self) -> int: ...

    def load_image(self, index: int) -> Image.Image:
        """The image as RGB, decoded."""

    def file(self, index: int) -> ImageFile:
        """The image's file, and how it is read."""

    def require_labels(self, every: bool = True) -> None:
        """Makes sure that the labels, if there are any, suit a training; see `require_classes`."""


class ImageSet:
    """The images of one list, with masks. Files are only opened when asked for.

    Attributes:
        ids: image ids in list order, each once.
        images: paths of the files.
        classes: C foreground class names; none where no file names them.
        labels: None; see `LabelledImages`.
        foreign: names of objects that are no class, with the number of images that have them, in labels that were read.
        imageless: ids of the rows of a label table (CSV) that no image belongs to.
    """

    labels: np.ndarray | None = None

    def __init__(self, config: DataConfig, list_name: str, require_images: bool = True) -> None:
        """Opens the list, and checks that every image is there.

        Args:
            list_name: A list file, or the name of one; ``all`` takes every image in the data set's image folder.
            require_images: Off for the data check, which names every missing image itself.

        Raises:
            UserError: the data set, the list or images are missing; the message names what provides them.
        """
        self.config, self.layout, self.root = config, LAYOUTS[config.dataset], Path(config.root)
        self.list_name = list_name
        config.require_root()
        self.classes = self._class_names()
        self._paths, self._mask_paths = image_paths(config, list_name), mask_paths(config, list_name)
        if list_name == "all":
            self._paths.require_flat()
            self.ids = list(self._paths.found())
            if not self.ids:
                raise UserError(f"no image {self._paths.pattern}: the list 'all' is empty. Put images there")
        else:
            file = config.list_file(list_name)
            self.ids = list(dict.fromkeys(read_list(file, config.dataset)))
            self._say_ignored_folders(file)
        self.images = self._paths.paths(self.ids)
        if require_images:
            self._refuse_missing()
        self._kept: list[np.ndarray] | None = None
        self.foreign: Counter[str] = Counter()
        self.imageless: list[str] = []

    def __len__(self) -> int:
        return len(self.ids)

    def unique(self) -> list[int]:
        """Indices of the images, each where the list first names it, in list order."""
        first: dict[str, int] = {}
        for index, image_id in enumerate(self.ids):
            first.setdefault(image_id, index)
        return list(first.values())

    def load_image(self, index: int) -> Image.Image:
        """The image as RGB, decoded.

        Raises:
            UserError: the file is damaged; it is named.
        """
        return self.file(index).read() if self._kept is None else Image.fromarray(self._kept[index])

    def file(self, index: int) -> ImageFile:
        """The image's file, and how it is read; for jobs in other processes."""
        return ImageFile(self.images[index], ImageRules(self.config.exif, tuple(self.config.range)))

    def keep_in_memory(self, prepare: Callable[[Image.Image], Image.Image], threads: int) -> int:
        """Decodes and prepares all images now, and keeps the results, which `load_image` then returns.

        Forked loader workers share the memory; every process of a run has its own.

        Args:
            prepare: RGB image to RGB image, without random draws.

        Returns:
            The bytes in memory.

        Raises:
            UserError: a file is damaged; it is named.
        """
        with ThreadPoolExecutor(threads) as pool:
            self._kept = list(pool.map(lambda index: np.asarray(prepare(self.file(index).read())), range(len(self))))
        return sum(pixels.nbytes for pixels in self._kept)

    def mask_path(self, image_id: str) -> Path:
        """Path of an image's true mask, which need not exist."""
        return self._mask_paths.path(image_id)

    def load_mask(self, index: int) -> np.ndarray:
        """The true mask, uint8 (H, W): 0 background, class index + 1, 255 ignore."""
        return read_mask(self.mask_path(self.ids[index]))

    def require_labels(self, every: bool = True) -> None:
        """As `TrainingImages.require_labels`."""

    def left_out(self) -> tuple[list[Path], list[Path]]:
        """As `common.data.layout.PathPattern.left_out`."""
        return self._paths.left_out()

    def _say_ignored_folders(self, file: Path) -> None:
        """Says once that the folders of a list's entries are ignored, unless they are the folder that is read."""
        own = {Path(self._paths.pattern.replace("{split}", split)).parent.name for split in self._paths.splits}
        others = [folder for folder in entry_folders(file) if Path(folder).name not in own]
        if others:
            say_once(
                f"note: {file} names folders ({preview(others, 3)}), which are ignored: images are read from "
                f"{Path(self._paths.pattern).parent}"
            )

    def sample_classes(self, ids: Sequence[str]) -> dict[str, list[int]]:
        """Class indices of some of the images, as their labels have them; empty where no labels are found."""
        try:
            return {key: np.flatnonzero(row).tolist() for key, row in zip(ids, self._labels_of(ids), strict=True)}
        except UserError:
            return {}

    def _labels_of(self, ids: Sequence[str]) -> np.ndarray:
        """Multi-hot labels of some of the images, float32 (n, C)."""
        classes = class_names(self.config)
        splits = {image_id: self._paths.split(image_id) for image_id in ids}
        table: dict[str, np.ndarray] = {}
        for split in sorted(set(splits.values())):
            part = [image_id for image_id in splits if splits[image_id] == split]
            found = read_label_table(self._labels_path(split, part), part, classes, self.config.dataset)
            table |= found.labels
            self.foreign += found.foreign
            if found.others:
                self.imageless = sorted(set(found.others) - self._paths.found().keys())
        return np.stack([table[image_id] for image_id in ids])

    def _labels_path(self, split: str, ids: Sequence[str]) -> Path:
        if self.config.labels != "auto":
            given = Path(self.config.labels.replace("{split}", split))
            return given if given.exists() else self.root / given
        shipped = LIST_DIR / self.config.dataset / "labels.npz"
        if shipped.is_file() and not self.config.classes and not _outside(shipped, ids):
            return shipped
        candidates = [self.root / name.replace("{split}", split) for name in self.layout.labels]
        for candidate in candidates:
            if candidate.exists():
                return candidate
        raise UserError(
            f"no image labels for {self.layout.title}: looked for {', '.join(map(str, candidates))}. "
            f"Make them with: {self.layout.provided_by}; or set data.labels"
        )

    def _refuse_missing(self) -> None:
        paths = dict.fromkeys(self.images)
        present = {path for folder in {path.parent for path in paths} if folder.is_dir() for path in folder.iterdir()}
        missing = [path for path in paths if path not in present]
        if missing:
            raise UserError(
                f"{len(missing)} of the {len(paths)} images of list {self.list_name!r} are missing: "
                f"{preview(missing, 3)}.{why_missing(missing, present)} Get the data set with: "
                f"{self.layout.provided_by}; find missing files with: python scripts/check_data.py"
            )

    def _class_names(self) -> list[str]:
        if self.config.dataset == "folder" and not self.config.classes and not labels_csv(self.config).is_file():
            return []
        return class_names(self.config)


class LabelledImages(ImageSet):
    """The images of one list with image-level labels.

    Attributes:
        classes: C foreground class names.
        labels: multi-hot float32 (N, C).
    """

    labels: np.ndarray

    def __init__(self, config: DataConfig, list_name: str, require_images: bool = True) -> None:
        """Opens the list and the labels.

        Args:
            list_name: as `ImageSet`.
            require_images: as `ImageSet`.

        Raises:
            UserError: as `ImageSet`; or classes or labels are missing; the message names what provides them.
        """
        super().__init__(config, list_name, require_images)
        self.classes = class_names(config)
        self.labels = self._labels_of(self.ids)

    def labelled(self, limit: int = 0) -> "LabelledImages":
        """The images that have any label; at most ``limit`` of them, the first ones, unless that is 0."""
        chosen = np.flatnonzero(self.labels.any(axis=1))[: limit or None]
        part = copy.copy(self)
        part.ids = [self.ids[index] for index in chosen]
        part.images = [self.images[index] for index in chosen]
        part.labels = self.labels[chosen]
        return part

    def require_labels(self, every: bool = True) -> None:
        """As `TrainingImages.require_labels`; ``data.absent_classes`` allows classes that no image has."""
        every = every and self.config.absent_classes == "refuse"
        require_classes(self.labels, self.classes, f"list {self.list_name!r}", every, self.foreign)
        if self.foreign:
            named = foreign_names(self.foreign, self.classes)
            say_once(f"note: annotations of list {self.list_name!r} name objects that are no class: {named}")
        if self.imageless:
            say_once(
                f"note: {len(self.imageless)} row(s) of {labels_csv(self.config)} are of images that are not there: "
                f"{preview(self.imageless, 3)}"
            )


def _outside(table: Path, ids: Sequence[str]) -> bool:
    """Whether a table of labels (.npz) lacks any of the images."""
    with np.load(table, allow_pickle=False) as data:
        return bool(set(ids) - {name.decode() for name in data["names"]})


def why_missing(missing: Sequence[Path], present: Iterable[Path]) -> str:
    """The probable reason: names that differ in case or Unicode form, or a list of several columns; else empty."""
    plain = {unicodedata.normalize("NFC", path.name).casefold(): path.name for path in present}
    for path in missing:
        other = plain.get(unicodedata.normalize("NFC", path.name).casefold())
        if other:
            return f" There is {other}, which differs in case or in the form of its accents."
    if any(" " in path.stem or "\t" in path.stem for path in missing):
        return " Their names hold spaces: where a list has columns, the first must end as .jpg or another image does."
    return ""


def labels_csv(config: DataConfig) -> Path:
    """The label table of a folder of images, existing or not."""
    labels = Path(config.root) / "labels.csv" if config.labels == "auto" else Path(config.labels)
    return labels if labels.exists() else Path(config.root) / labels


def class_names(config: DataConfig) -> list[str]:
    """Foreground class names in label order.

    Raises:
        UserError: the class file or label table cannot be used.
    """
    if config.classes:
        return read_classes(config.classes)
    if config.dataset == "folder":
        return csv_classes(labels_csv(config))
    return list(LAYOUTS[config.dataset].classes)
