"""Checks a data set: lists, images, labels and masks; exit code 1 if anything would break training or evaluation.

    python scripts/check_data.py                                          PASCAL VOC 2012 in data/VOC2012
    python scripts/check_data.py --data coco14                            MS COCO 2014 in data/COCO2014
    python scripts/check_data.py --data folder data.root=path/to/my_set   a folder of images with labels.csv
    python scripts/check_data.py --data cub                               CUB-200-2011 in data/CUB_200_2011
    python scripts/check_data.py data.root=data/shapes data.classes=data/shapes/classes.txt

Every image and mask is decoded. Lines that end in PROBLEM name what must be corrected; lines that end in "note" inform,
for example of images without any object or of training images without a mask. For CUB-200-2011 and sets in its layout,
tables, images and boxes are checked.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.data.classes import IGNORE_LABEL, looks_like
from common.data.cub import TITLE as CUB_TITLE
from common.data.cub import CUBConfig
from common.data.dataset import ImageSet, LabelledImages, why_missing
from common.data.images import LEAST_SIDE, ImageFacts, ImageFile
from common.data.labels import foreign_names
from common.data.layout import LAYOUTS, DataConfig
from common.data.lists import LIST_DIR, read_list
from common.data.masks import is_renumbered, read_mask
from common.data.prepare.cub_check import check_cub
from common.data.prepare.report import Table
from common.run.command import parse_config, script_parser
from common.run.config import at_least, load_config, option, section
from common.run.errors import UserError, run_script
from common.run.needs import Needs
from common.run.progress import map_in_processes
from common.score.mask_meaning import MaskMeaning

DEFAULT_ROOTS = {
    "voc12": "data/VOC2012",
    "coco14": "data/COCO2014",
    "folder": "data/folder",
    "cub": "data/CUB_200_2011",
}


@dataclass
class CheckConfig:
    """The data set and the lists to check."""

    data: DataConfig = section(DataConfig)
    train_list: str = option(
        "auto",
        "Training list; auto: train_aug for the official VOC, all images of a folder, else train.",
        flag="--train_list",
    )
    val_list: str = option("auto", "Validation list; auto: val where there is one; empty: none.", flag="--val_list")
    workers: int = option(os.cpu_count() or 1, "Processes that decode files.", flag="--workers", rule=at_least(1))
    show: int = option(5, "Most offenders of a kind that are named.", flag="--show", rule=at_least(0))


@dataclass(frozen=True)
class Decoded:
    """The result of decoding an image and its mask: facts, sizes (H, W), values of the mask, error texts."""

    image: ImageFacts | None = None
    mask_size: tuple[int, int] | None = None
    values: frozenset[int] = frozenset()
    image_error: str = ""
    mask_error: str = ""
    is_renumbered: bool = False


def decode(job: tuple[ImageFile, Path]) -> Decoded:
    """Decodes an image and its mask, if they exist."""
    image_file, mask_path = job
    image = mask_size = None
    values: frozenset[int] = frozenset()
    image_error = mask_error = ""
    renumbered = False
    try:
        if image_file.path.exists():
            image = image_file.describe()
    except UserError as error:
        image_error = str(error)
    try:
        if mask_path.exists():
            mask = read_mask(mask_path)
            renumbered = is_renumbered(mask_path)
            mask_size, values = mask.shape, frozenset(np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist())
    except UserError as error:
        mask_error = str(error)
    return Decoded(image, mask_size, values, image_error, mask_error, renumbered)


def open_list(table: Table, data: DataConfig, name: str) -> ImageSet:
    """Opens a list, with labels if they are usable; an error in the labels becomes a line."""
    try:
        labelled = LabelledImages(data, name, require_images=False)
    except UserError as error:
        images = ImageSet(data, name, require_images=False)  # raises if the labels are not the cause
        table.row("labels", "unusable", "PROBLEM", [error])
        return images
    table.row("labels", "readable")
    return labelled


def check_ids(table: Table, images: ImageSet, name: str) -> None:
    """Length, official counterpart and duplicates of a list."""
    shipped = LIST_DIR / images.config.dataset / f"{Path(name).stem}.txt"
    dataset = images.config.dataset
    entries = images.ids if name == "all" else read_list(images.config.list_file(name), dataset)
    repeated = [image_id for image_id, count in Counter(entries).items() if count > 1]
    table.row("entries", len(entries))
    official = read_list(shipped, images.config.dataset) if shipped.is_file() else []
    if set(official) & set(images.ids):  # else this is another data set in the same layout
        lacks, others = set(official) - set(images.ids), set(images.ids) - set(official)
        table.row(
            f"entries of the official {shipped.stem}", len(official), "note" if lacks or others else "ok",
            [f"{len(lacks)} of them are not in this list; it has {len(others)} others"],
        )  # fmt: skip
        if sorted(official) == sorted(entries):
            repeated = []  # val14_small is published with duplicates
    table.offence("duplicate entries", repeated, "note")


def check_files(table: Table, images: ImageSet, found: dict[str, Decoded], need_mask: set[str]) -> None:
    """Missing, unreadable and mismatched images and masks of a list."""
    paths = dict(zip(images.ids, images.images, strict=True))
    allowed = {*range(len(images.classes) + 1), IGNORE_LABEL}
    no_mask = [image_id for image_id, item in found.items() if item.mask_size is None and not item.mask_error]
    missing = [paths[key] for key, item in found.items() if item.image is None and not item.image_error]
    present = [path for folder in {path.parent for path in missing} if folder.is_dir() for path in folder.iterdir()]
    reason = why_missing(missing, present).strip()
    table.row("missing images", len(missing), "PROBLEM" if missing else "ok", [*([reason] if reason else []), *missing])
    table.offence("unreadable images", [item.image_error for item in found.values() if item.image_error])
    table.row("masks", len(found) - len(no_mask))
    needed = [key for key in no_mask if key in need_mask]
    table.offence("missing masks, needed for evaluation", [images.mask_path(key) for key in needed])
    unneeded = len(no_mask) - len(needed)
    table.row("images without a mask, for training only", unneeded, "note" if unneeded else "ok")
    table.offence("unreadable masks", [item.mask_error for item in found.values() if item.mask_error])
    table.offence(
        f"masks with values outside 0..{len(images.classes)} and {IGNORE_LABEL}",
        [f"{key}: {sorted(item.values - allowed)}" for key, item in found.items() if item.values - allowed],
    )
    renumbered = [key for key, item in found.items() if item.is_renumbered]
    table.offence("masks with VOC's colours under other indices", renumbered, _colours_verdict(images))
    table.offence(
        "image and mask differ in size (H, W)",
        [
            f"{key}: image {item.image.size}, mask {item.mask_size}"
            for key, item in found.items()
            if item.image and item.mask_size and item.image.size != item.mask_size
        ],
    )


def _colours_verdict(images: ImageSet) -> str:
    """A set with classes of its own may give VOC's colours to them in an order of its own."""
    return "PROBLEM" if tuple(images.classes) == LAYOUTS[images.config.dataset].classes else "note"


def check_images(table: Table, exif: str, found: dict[str, Decoded]) -> None:
    """What images have beyond their pixels, and images that are too small.

    Args:
        exif: the rule for their orientation.
    """
    images = {key: item.image for key, item in found.items() if item.image}
    small = [f"{key}: {image.size}" for key, image in images.items() if min(image.size) < LEAST_SIDE]
    table.offence(f"images with a side below {LEAST_SIDE} pixels (H, W)", small)
    turned = [f"{key}: orientation {image.orientation}" for key, image in images.items() if image.orientation != 1]
    table.offence(f"images that EXIF data turn (data.exif={exif})", turned, "note")
    hidden = [key for key, image in images.items() if image.is_transparent]
    table.offence("images with transparency, which is dropped", hidden, "note")


def check_labels(table: Table, images: LabelledImages, found: dict[str, Decoded], is_training: bool) -> None:
    """Images without any class, classes without an image, names that are no class, and labels that disagree with the
    masks.
    """
    labels = {key: set(np.flatnonzero(row).tolist()) for key, row in zip(images.ids, images.labels, strict=True)}
    counts = images.labels.sum(axis=0).astype(int)
    unseen = [name for name, count in zip(images.classes, counts.tolist(), strict=True) if not count]
    empty = [key for key in found if not labels[key]]
    table.offence("images without any class", empty, "PROBLEM" if len(empty) == len(found) else "note")
    must_occur = is_training and images.config.absent_classes == "refuse"
    table.offence("classes that no image has", unseen, "PROBLEM" if must_occur else "note")
    table.row("images of a class, fewest and most", f"{counts.min()}, {counts.max()}")
    table.offence("rows of the label table without an image", images.imageless, "note")
    meant = [name for name in images.foreign if looks_like(name, images.classes)]
    named = foreign_names(images.foreign, images.classes, table.show)
    table.row("names of objects that are no class", len(images.foreign), _verdict(meant, images.foreign), [named])
    meaning = MaskMeaning(images.classes)
    only_mask: list[str] = []
    only_label: list[str] = []
    for key, item in found.items():
        if item.mask_size is None:
            continue
        meaning.add(item.values, labels[key])
        seen = {value - 1 for value in item.values if 0 < value <= len(images.classes)}
        for extra, target in ((seen - labels[key], only_mask), (labels[key] - seen, only_label)):
            if extra:
                target.append(f"{key}: {', '.join(images.classes[i] for i in sorted(extra))}")
    table.offence("masks with a class that the label lacks", only_mask, "note")
    table.offence("labels with a class that the mask lacks", only_label, "note")
    table.offence("signs that masks mean other classes", meaning.findings())


def _verdict(meant: Sequence[str], foreign: Counter[str]) -> str:
    """A name that a class differs from in spelling only is a mistake; others may be left out on purpose."""
    return "PROBLEM" if meant else "note" if foreign else "ok"


def check_left_out(table: Table, images: ImageSet, name: str) -> None:
    """Files in the folder of images that the list ``all`` does not read."""
    if name == "all":
        files, _ = images.left_out()
        table.offence("image files of another ending, left out", files, "note")


def check_list(
    table: Table, config: CheckConfig, name: str, need_mask: set[str] | None, is_training: bool = False
) -> ImageSet:
    """Checks one list; the images ``need_mask`` (None: all of the list) must have masks."""
    table.title(f"list {name}")
    images = open_list(table, config.data, name)
    check_ids(table, images, name)
    check_left_out(table, images, name)
    jobs = {key: (images.file(index), images.mask_path(key)) for index, key in enumerate(images.ids)}
    decoded = map_in_processes(decode, list(jobs.values()), config.workers, f"list {name}")
    found = dict(zip(jobs, decoded, strict=True))
    check_files(table, images, found, set(images.ids) if need_mask is None else need_mask)
    check_images(table, config.data.exif, found)
    if isinstance(images, LabelledImages):
        check_labels(table, images, found, is_training)
    return images


def choose_lists(config: CheckConfig) -> tuple[str, str, set[str]]:
    """Training list, validation list (or empty), and the training images that must have masks."""
    data, root, train, val = config.data, Path(config.data.root), config.train_list, config.val_list
    own = root / "ImageSets" / "Segmentation" / "train.txt"
    shipped = LIST_DIR / data.dataset / "train.txt"
    official = set(read_list(shipped, data.dataset)) if shipped.is_file() else set()
    is_official = own.is_file() and bool(official) and set(read_list(own, data.dataset)) == official
    lists_are_own = own.is_file() or data.dataset != "coco14"
    if train == "auto":
        aug = is_official or not own.is_file()
        default = {"voc12": "train_aug" if aug else "train", "folder": "all"}
        train = default.get(data.dataset, "train" if lists_are_own else "train14")
    if val == "auto":
        val = "val" if lists_are_own else "val14"
        if data.dataset == "folder" and not (root / "val.txt").is_file() and not (own.parent / "val.txt").is_file():
            val = ""
    return train, val, official if is_official else set()


def check_lists(table: Table, config: CheckConfig, only_check: bool = False) -> int:
    """Checks the training and the validation list; returns the number of classes.

    Args:
        only_check: ends when folder and lists have proved to be there.
    """
    needs = Needs()
    needs.ask(config.data.require_root)
    if needs.missing:
        needs.settle(only_check)
    train, val, with_masks = choose_lists(config)
    needs.ask_all(config.data.needs([name for name in (train, val) if name]))
    needs.settle(only_check)
    first = check_list(table, config, train, with_masks, is_training=True)
    if val:
        second = check_list(table, config, val, None)
        table.title("both lists")
        table.offence("images in both", sorted(set(first.ids) & set(second.ids)))
    return len(first.classes)


def check_tables(table: Table, config: CheckConfig, only_check: bool) -> int:
    """Checks a set in CUB's layout; returns the number of classes."""
    needs = Needs()
    needs.ask(CUBConfig(config.data.root).require_root)  # the table names the files that it lacks
    needs.settle(only_check)
    if config != CheckConfig(DataConfig(root=config.data.root), workers=config.workers, show=config.show):
        raise UserError("--data cub takes data.root alone: split, labels and boxes come from the tables in that folder")
    return check_cub(table, Path(config.data.root), config.workers)


def main() -> int:
    """Runs the script."""
    parser = script_parser(__doc__, CheckConfig)
    parser.add_argument("--data", choices=tuple(DEFAULT_ROOTS), help="the layout, = data.dataset, with its usual root")
    args, overrides = parse_config(parser)
    is_cub = args.data == "cub"
    if args.data:
        usual = [f"data.root={DEFAULT_ROOTS[args.data]}", *([] if is_cub else [f"data.dataset={args.data}"])]
        overrides = [*usual, *overrides]
    config = load_config(CheckConfig, overrides=overrides)
    table = Table(config.show)
    title = CUB_TITLE if is_cub else LAYOUTS[config.data.dataset].title
    classes = (check_tables if is_cub else check_lists)(table, config, args.check)
    print(f"{title} at {config.data.root}, {classes} classes", *table.lines, sep="\n")
    print(f"\n{table.problems} line(s) with a PROBLEM" if table.problems else "\nno problems")
    return int(table.problems > 0)


if __name__ == "__main__":
    run_script(main)
