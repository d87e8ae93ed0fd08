"""Layouts of data sets, the section ``data``, and the rule that gives an image's paths.

COCO's file names hold the split, ``train`` or ``val``. The key ``data.split`` forces it; else the words of the list's
name tell it; else it is, image by image, the split whose file exists.
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.data.classes import COCO14, VOC12
from common.data.lists import IMAGE_SUFFIXES, find_list
from common.run.config import option
from common.run.errors import UserError, preview

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Layout:
    """Places of a data set's files, relative to its root; ``{id}`` and ``{split}`` are filled in."""

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
    """Images, labels and masks."""

    dataset: str = option("voc12", "Layout and id spelling of the data set.", flag="--data-set", choices=tuple(LAYOUTS))
    root: str = option(
        "data/VOC2012", "Folder of the data set.", flag=("--data-path", "--data_path", "--voc12_root", "--data_folder")
    )
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
    absent_classes: str = option(
        "refuse", "A training in which no image has some class: refuse, or allow, as for debugging on few images.",
        choices=("refuse", "allow"),
    )  # fmt: skip
    split: str = option(
        "auto",
        "COCO's folder, train or val; auto takes it from the words of the list's name, else from which files exist.",
        choices=("auto", *SPLITS),
    )

    def needs(self, lists: Sequence[str]) -> Iterator[Callable[[], str]]:
        """Checks of the folder, the classes and, in the right folder, of image lists; none decodes anything."""
        yield self.require_root
        yield self.require_classes
        if self._has_images():
            yield from (functools.partial(self.require_list, name) for name in lists)

    def require_folder(self) -> str:
        """Makes sure that the folder is there.

        Raises:
            UserError: it is not; the message names what provides it.
        """
        layout = LAYOUTS[self.dataset]
        root = Path(self.root)
        if not root.is_dir():
            raise UserError(
                f"no {layout.title} at {root} (from {Path.cwd()}). Get it with: {layout.provided_by}; or name the "
                "place where it is: data.root=/path/to/it"
            )
        return str(root)

    def require_root(self) -> str:
        """Makes sure that the folder is there, and is that of such a data set.

        Raises:
            UserError: as `require_folder`; or it has no images, and the message names the folder that is meant.
        """
        root = Path(self.require_folder())
        layout = LAYOUTS[self.dataset]
        if not self._has_images():
            folders = self._image_folders()
            inside = [path for folder in folders for path in [*root.glob(f"*/{folder}"), *root.glob(f"*/*/{folder}")]]
            meant = str(inside[0]).removesuffix(folders[0]).rstrip("/") if inside else ""
            hint = f" Did you mean data.root={meant}?" if inside else ""
            there = preview(sorted(path.name for path in root.iterdir())) or "nothing"
            raise UserError(
                f"{root} is there, but holds no {layout.title}: it has no {' or '.join(folders)}, but {there}.{hint} "
                f"data.root is the folder that holds {folders[0]}; {layout.provided_by}"
            )
        return str(root)

    def _has_images(self) -> bool:
        """Whether a folder of images is there; a pattern with the id in the folder's name has none in particular."""
        return any("{id}" in folder or (Path(self.root) / folder).is_dir() for folder in self._image_folders())

    def _image_folders(self) -> list[str]:
        """The folders of images, relative to the root: one, or one for each split."""
        patterns = [(self.image or LAYOUTS[self.dataset].image).replace("{split}", split) for split in SPLITS]
        return list(dict.fromkeys(str(Path(pattern).parent) for pattern in patterns))

    def require_classes(self) -> str:
        """Makes sure that the file of classes is there, if one is named.

        Raises:
            UserError: it is not.
        """
        if self.classes and not Path(self.classes).is_file():
            raise UserError(f"data.classes: {self.classes} cannot be read: there is no such file (from {Path.cwd()})")
        return self.classes or "official classes"

    def list_file(self, name: str) -> Path:
        """The file of an image list; see `find_list`."""
        return find_list(name, self.dataset, self.root, self.classes)

    def require_list(self, name: str) -> str:
        """Makes sure that an image list is there; ``all`` needs no file.

        Raises:
            UserError: as `find_list`.
        """
        return "list all" if name == "all" else f"list {name} ({self.list_file(name)})"


@dataclass(frozen=True)
class PathPattern:
    """Paths of one file for each image.

    Attributes:
        pattern: holds ``{id}``, and ``{split}`` in COCO's layout.
        splits: possible splits, in the order of preference.
        provided_by: command that makes the files, for messages.
    """

    pattern: str
    splits: tuple[str, ...]
    provided_by: str

    def split(self, image_id: str) -> str:
        """The split of an image: the first one whose file exists, else the first one."""
        others = self.splits[1:] if "{split}" in self.pattern else ()
        existing = (split for split in self.splits if others and self._path(image_id, split).is_file())
        return next(existing, self.splits[0])

    def path(self, image_id: str) -> Path:
        """The file of an image, existing or not."""
        return self._path(image_id, self.split(image_id))

    def paths(self, ids: Iterable[str]) -> list[Path]:
        """The files of images, existing or not; an extension ``.*`` is looked up."""
        found = self.found() if self.pattern.endswith(".*") else {}
        return [found.get(image_id) or self.path(image_id) for image_id in ids]

    def found(self) -> dict[str, Path]:
        """Existing files by id, sorted; ``.*`` in the pattern stands for any extension of an image.

        Files whose names begin with a dot do not count: systems leave them, such as ``._a.jpg`` of macOS.

        Raises:
            UserError: the folder is missing, or two files would share an id.
        """
        files: dict[str, Path] = {}
        for pattern in self._patterns():
            before, _, after = pattern.name.partition("{id}")
            for path in _visible(pattern.parent):
                ending = path.suffix if after == ".*" and path.suffix.lower() in IMAGE_SUFFIXES else after
                if path.name.startswith(before) and path.name.endswith(ending):
                    image_id = path.name[len(before) : -len(ending) or None]
                    twin = files.setdefault(image_id, path)
                    if twin.parent == path.parent and twin != path:
                        raise UserError(
                            f"{twin} and {path.name} share the id {image_id!r}: rename or remove one, or name the "
                            f"extension of the images, such as data.image='{pattern.parent.name}/{{id}}{twin.suffix}'"
                        )
        return dict(sorted(files.items()))

    def left_out(self) -> tuple[list[Path], list[Path]]:
        """Image files in the folder that the pattern does not match, and sub-folders that hold images.

        Raises:
            UserError: as `found`.
        """
        taken = set(self.found().values())
        folders = {pattern.parent for pattern in self._patterns()}
        entries = [path for folder in sorted(folders) for path in _visible(folder)]
        files = [path for path in entries if _is_image(path) and path not in taken]
        inner = [path for path in entries if path.is_dir() and path not in folders and _holds_images(path)]
        return files, inner

    def require_flat(self) -> None:
        """Makes sure that no images lie in sub-folders, where they would be left out.

        Raises:
            UserError: some do; or as `found`.
        """
        _, inner = self.left_out()
        if inner:
            raise UserError(
                f"{preview(inner, 3)}: this sub-folder holds images, which the list 'all' does not read. Move them up, "
                f"or take one sub-folder with data.image='{inner[0].parent.name}/{inner[0].name}/{{id}}.*'"
            )

    def _patterns(self) -> list[Path]:
        """The pattern in each split.

        Raises:
            UserError: there is no folder of any split.
        """
        patterns = [Path(self.pattern.replace("{split}", split)) for split in self.splits]
        if not any(pattern.parent.is_dir() for pattern in patterns):
            raise UserError(f"no folder {patterns[0].parent}; {self.provided_by}")
        return list(dict.fromkeys(pattern for pattern in patterns if pattern.parent.is_dir()))

    def _path(self, image_id: str, split: str) -> Path:
        return Path(self.pattern.replace("{split}", split).replace("{id}", image_id))


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()


def _holds_images(folder: Path) -> bool:
    return any(_is_image(path) for path in folder.rglob("[!.]*"))


def image_paths(config: DataConfig, list_name: str) -> PathPattern:
    """Paths of a list's images."""
    layout = LAYOUTS[config.dataset]
    pattern = str(Path(config.root) / (config.image or layout.image))
    return PathPattern(pattern, _splits_of_list(config, list_name), layout.provided_by)


def mask_paths(config: DataConfig, list_name: str, gt_dir: str = "") -> PathPattern:
    """Paths of the true masks of a list's images.

    Args:
        gt_dir: folder of the masks, in place of the data set's own; the words of its name tell the split.
    """
    layout = LAYOUTS[config.dataset]
    pattern = Path(config.root) / (config.mask or layout.mask)
    splits = _splits_of_list(config, list_name)
    if gt_dir:
        pattern = Path(gt_dir) / pattern.name
        splits = _splits(config, Path(gt_dir).absolute().name)
    return PathPattern(str(pattern), splits, layout.provided_by)


def splits_in_name(name: str) -> tuple[str, ...]:
    """COCO's split as the words of a name tell it; both splits where they tell none or both.

    Letters between digits and punctuation make a word: val14, train_eval and train14_small tell, interval and trainval
    do not.
    """
    words = re.findall(r"[^\W\d_]+", name.lower())
    told = tuple(split for split in SPLITS if split in words)
    return told if len(told) == 1 else SPLITS


def _splits_of_list(config: DataConfig, list_name: str) -> tuple[str, ...]:
    # "all" means one folder's images: a training on it must not see images of the validation.
    return _splits(config, "train" if list_name == "all" else Path(list_name).stem)


def _splits(config: DataConfig, name: str) -> tuple[str, ...]:
    return splits_in_name(name) if config.split == "auto" else (config.split,)
