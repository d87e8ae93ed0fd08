"""Prepares PASCAL VOC 2012, MS COCO 2014 or CUB-200-2011: download, checksum, unpacking, masks, image labels.

    python scripts/prepare_data.py voc                              VOC 2012 and SBD into data/VOC2012
    python scripts/prepare_data.py voc --archive VOCtrainval_11-May-2012.tar --archive benchmark.tgz
    python scripts/prepare_data.py coco                             COCO 2014 into data/COCO2014
    python scripts/prepare_data.py cub                              CUB-200-2011 into data/CUB_200_2011
    python scripts/prepare_data.py coco --root data/mini --split train --json instances.json --images folder/of/images

    python scripts/prepare_data.py masks --source my_masks --target my_set/masks    your own masks, whatever their form

Existing files are kept, not fetched or made again, so the command can be interrupted and repeated.

VOC: SegmentationClassAug/ gets the masks of SBD, and the official mask wherever there is one; labels.npz holds the
image labels of all Annotations and is compared with the shipped ones.

COCO: index masks (category index + 1) are painted from the instances JSON. Crowd regions come first, then all other
regions from large to small, so that small objects stay visible on large ones; equal areas by annotation id. Crowd
regions are painted as their class, or as 255 (ignored) with --crowd ignore; in the image labels they always count. An
image without annotations gets a mask of background and labels of zeros.

Masks: colours of VOC's palette, alpha channels, 16 and 32 bits and arrays become palette PNGs of label indices.
--map replaces labels, --by-colour restores indices that a program has renumbered.

CUB: the images and the tables of their paths, classes, split and boxes are unpacked, and counted.
"""

import argparse
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from common.data.classes import COCO14
from common.data.cub import OFFICIAL_IMAGES, TABLES, CUBConfig, CUBImages, missing_files
from common.data.dataset import LAYOUTS
from common.data.images import read_image
from common.data.labels import Labels, read_labels, write_labels
from common.data.lists import LIST_DIR, read_list
from common.data.masks import write_mask
from common.data.prepare.coco import Instances, Region, check_rules, link_images, paint_mask, read_instances
from common.data.prepare.fetch import Archive, obtain, unpack
from common.data.prepare.mask_files import convert_masks, parse_map
from common.data.prepare.voc import augment_masks, label_voc
from common.run.command import number, script_parser
from common.run.config import at_least
from common.run.errors import UserError, preview, run_script
from common.run.files import atomic_write, write_json
from common.run.progress import map_in_processes

VOC = Archive(
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    "6cd6e144f989b92b3379bac3b3de84fd", "2 GB",
)  # fmt: skip
SBD = Archive(
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    "82b4d87ceb2ed10f6038a1cba92111cb", "1.4 GB",
)  # fmt: skip
COCO = "http://images.cocodataset.org"
COCO_IMAGES = {
    "train": Archive(f"{COCO}/zips/train2014.zip", "0da8c0bd3d6becc4dcb32757491aca88", "13 GB"),
    "val": Archive(f"{COCO}/zips/val2014.zip", "a3d79f5ed8d289b7a7554ce06a5782b3", "6 GB"),
}
COCO_JSON = Archive(f"{COCO}/annotations/annotations_trainval2014.zip", "0a379cfc70b0e71301e0f377548639bd", "241 MB")
CUB = Archive(
    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz", "97eceeb196236b17998738112f37df78", "1.1 GB"
)
COCO_LABELLED_TRAIN = 82081  # images of train2014 with at least one annotation

Need = tuple[Archive, Callable[[str], str | None]]  # an archive, and the path of a member under the root, if wanted


def prepare_voc(args: argparse.Namespace) -> None:
    """Brings ``args.root`` into the layout that `common.data.dataset` reads."""
    root: Path = args.root
    lists = {name: read_list(LIST_DIR / "voc12" / f"{name}.txt", "voc12") for name in ("train", "val", "train_aug")}
    official = {*lists["train"], *lists["val"]}
    everything = {*lists["train_aug"], *lists["val"]}
    devkit = _paths(root, everything, ("JPEGImages", ".jpg"), ("Annotations", ".xml"))
    devkit += _paths(root, official, ("SegmentationClass", ".png"))
    devkit += [root / "ImageSets" / "Segmentation" / f"{name}.txt" for name in ("train", "val")]
    needs: list[Need] = [(VOC, _voc_member)] if any(not path.exists() for path in devkit) else []
    augmented = [] if args.no_sbd else _paths(root, everything, ("SegmentationClassAug", ".png"))
    if any(not path.exists() for path in augmented):
        needs += [(SBD, _sbd_member)]
    _fetch_and_unpack(args, needs)
    if not root.is_dir():
        raise UserError(f"no folder {root}; leave out --no-download to fetch the data set into it")
    if not args.no_sbd:
        augment_masks(root, args.workers)
    label_voc(root)


def _paths(root: Path, ids: Iterable[str], *kinds: tuple[str, str]) -> list[Path]:
    return [root / folder / f"{image_id}{suffix}" for folder, suffix in kinds for image_id in ids]


def _fetch_and_unpack(args: argparse.Namespace, needs: list[Need]) -> None:
    if args.no_download and not args.archive:
        return  # existing files must suffice
    archives = [archive for archive, _ in needs]
    paths = obtain(archives, args.root / "downloads", args.archive, not args.no_download, not args.skip_checksum)
    for path, (_, member) in zip(paths, needs, strict=True):
        unpack(path, args.root, member)


def _voc_member(name: str) -> str | None:
    path = name.removeprefix("VOCdevkit/VOC2012/")
    wanted = ("JPEGImages/", "Annotations/", "SegmentationClass/", "ImageSets/Segmentation/")
    return path if path.startswith(wanted) else None


def _sbd_member(name: str) -> str | None:
    path = PurePosixPath(name)
    return f"SBD/cls/{path.name}" if path.parent.name == "cls" and path.suffix == ".mat" else None


def prepare_cub(args: argparse.Namespace) -> None:
    """Brings ``args.root`` into the layout that `common.data.cub` reads."""
    root: Path = args.root
    _fetch_and_unpack(args, [(CUB, _cub_member)] if missing_files(root) else [])
    missing = missing_files(root)
    if missing:
        raise UserError(
            f"{len(missing)} file(s) of CUB-200-2011 are missing: {preview(missing, 3)}. Leave out --no-download to "
            "fetch them; an archive that was given lacks them"
        )
    found = {split: len(CUBImages(CUBConfig(str(root)), split)) for split in OFFICIAL_IMAGES}
    verdict = "as published" if found == OFFICIAL_IMAGES else f"NOT the official {OFFICIAL_IMAGES}"
    print(f"{root}: {found['train']} training and {found['test']} test images, {verdict}")


def _cub_member(name: str) -> str | None:
    path = name.removeprefix("CUB_200_2011/")
    is_image = path.startswith("images/") and path.lower().endswith(".jpg")
    return path if path in (*TABLES, "README") or is_image else None


def prepare_coco(args: argparse.Namespace) -> None:
    """Brings ``args.root`` into the layout that `common.data.dataset` reads."""
    if (args.json or args.images) and len(args.split) != 1:
        raise UserError("--json and --images belong to one split: add --split train or --split val")
    jsons = {split: args.json or args.root / f"annotations/instances_{split}2014.json" for split in args.split}
    _fetch_and_unpack(args, _coco_needs(args, jsons))
    tables: Labels = {}
    for split, path in jsons.items():
        instances = read_instances(path)
        _check_images(args, split, instances)
        tables |= label_coco(args.root, split, instances)
        if instances.has_segmentations():
            paint_split(args, split, instances)
        else:
            print(f"no annotation of {path} has a segmentation: labels are made, masks are not")
    if len(args.split) == 2 and instances.classes == list(COCO14):
        _write_reference_labels(args.root / "cls_labels_coco.npy", tables)


def _coco_needs(args: argparse.Namespace, jsons: dict[str, Path]) -> list[Need]:
    """The official archives that hold a missing file."""
    needs: list[Need] = []
    if args.json is None and any(not path.is_file() for path in jsons.values()):
        needs.append((COCO_JSON, lambda name: name if "/instances_" in name else None))
    for split in jsons if args.json is None and args.images is None else ():
        ids = read_list(LIST_DIR / "coco14" / f"{split}14.txt", "coco14")
        if any(not _coco_path(args.root, split, image_id, "image").exists() for image_id in ids):
            needs.append((COCO_IMAGES[split], partial(_below, f"{split}2014/")))
    return needs


def _below(folder: str, name: str) -> str | None:
    return name if name.startswith(folder) else None


def _check_images(args: argparse.Namespace, split: str, instances: Instances) -> None:
    """Links the images if requested, and makes sure that all of them exist."""
    targets = {image_id: _coco_path(args.root, split, image_id, "image") for image_id in instances.files}
    if args.images is not None:
        print(f"{args.root / f'{split}2014'}: {link_images(args.images, instances.files, targets)}")
    missing = [path for path in targets.values() if not path.exists()]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(targets)} images in {instances.path} are missing: {preview(missing, 3)}. "
            "Leave out --no-download to fetch the official ones, or name your own folder with --images"
        )


def _coco_path(root: Path, split: str, image_id: str, kind: str) -> Path:
    pattern = getattr(LAYOUTS["coco14"], kind)
    return root / pattern.replace("{split}", split).replace("{id}", image_id)


def label_coco(root: Path, split: str, instances: Instances) -> Labels:
    """Writes image labels and the id list; compares them with the known numbers of the official set."""
    ids = sorted(instances.files)
    classes = instances.classes
    labels = read_labels(instances.path, ids, classes, "coco14")
    write_labels(root / f"labels_{split}2014.npz", labels)
    with atomic_write(root / "ImageSets" / "Segmentation" / f"{split}.txt", "w") as file:
        file.writelines(f"{image_id}\n" for image_id in ids)
    unlabelled = {image_id for image_id in ids if not labels[image_id].any()}
    print(f"labels_{split}2014.npz: {len(ids)} images of {len(classes)} classes, {len(unlabelled)} without any object")
    if classes != list(COCO14):
        with atomic_write(root / "classes.txt", "w") as file:
            file.writelines(f"{name}\n" for name in classes)
        print(f"WARNING: these are not COCO's 80 classes; use the set with data.classes={root / 'classes.txt'}")
    elif set(ids) != set(read_list(LIST_DIR / "coco14" / f"{split}14.txt", "coco14")):
        print(f"note: these are not the images of the official {split}2014; its counts are not checked")
    elif split == "train":
        expected = set(read_list(LIST_DIR / "coco14" / "train14_unlabelled.txt", "coco14"))
        if len(ids) - len(unlabelled) != COCO_LABELLED_TRAIN or unlabelled != expected:
            print(
                f"WARNING: {len(ids) - len(unlabelled)} labelled images, expected {COCO_LABELLED_TRAIN}; differing: "
                f"{preview(sorted(unlabelled ^ expected))}. Is {instances.path} the official file?"
            )
        else:
            print(f"labelled and unlabelled images are the official {COCO_LABELLED_TRAIN} and {len(expected)}")
    return labels


def _write_reference_labels(path: Path, labels: Labels) -> None:
    """Writes the papers' own label file, with integer keys, for use with their code."""
    table = {int(image_id): row for image_id, row in labels.items()}
    with atomic_write(path) as file:
        np.save(file, np.array(table, dtype=object), allow_pickle=True)


def paint_split(args: argparse.Namespace, split: str, instances: Instances) -> None:
    """Paints the missing masks."""
    folder = _coco_path(args.root, split, "", "mask").parent
    rules = folder / ".prepare_data.json"
    content = {"crowd": args.crowd, "json_bytes": instances.path.stat().st_size}
    if args.overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    check_rules(rules, content)
    write_json(rules, content)
    paths = {image_id: _coco_path(args.root, split, image_id, "mask") for image_id in instances.files}
    todo = [image_id for image_id, path in paths.items() if not path.exists()]
    jobs = [
        (_coco_path(args.root, split, image_id, "image"), paths[image_id], instances.sizes[image_id],
         instances.regions.get(image_id, []))
        for image_id in todo
    ]  # fmt: skip
    paint = partial(_paint_job, args.crowd == "ignore")
    counts = map_in_processes(paint, jobs, args.workers, f"{split} masks")
    print(f"{folder}: {len(todo)} masks painted, {len(paths) - len(todo)} were there")
    unpainted: Counter[str] = sum(counts, Counter())
    if unpainted:
        print(f"WARNING: not painted: {', '.join(f'{count} {reason}' for reason, count in unpainted.items())}")


def _paint_job(ignore_crowds: bool, job: tuple[Path, Path, tuple[int, int], list[Region]]) -> Counter[str]:
    image_path, path, size, regions = job
    image = read_image(image_path)
    if (image.height, image.width) != size:
        raise UserError(
            f"{image_path} is of {image.height} x {image.width} pixels (height x width), but its entry in the "
            f"instances JSON says {size[0]} x {size[1]}: the two are of different images; correct the JSON"
        )
    mask, unpainted = paint_mask(size, regions, ignore_crowds)
    write_mask(path, mask)
    return unpainted


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__)
    commands = parser.add_subparsers(dest="set", required=True, metavar="voc | coco | cub | masks")
    for name, root, run in (
        ("voc", "data/VOC2012", prepare_voc), ("coco", "data/COCO2014", prepare_coco),
        ("cub", "data/CUB_200_2011", prepare_cub),
    ):  # fmt: skip
        command = commands.add_parser(name, help=f"prepare {root}")
        command.set_defaults(run=run)
        add = command.add_argument
        add("--root", type=Path, default=Path(root), help="folder of the data set (default: %(default)s)")
        add("--archive", type=Path, action="append", default=[], help="an archive fetched by hand; repeatable")
        add("--no-download", action="store_true", help="work with existing files, use no network")
        add("--skip-checksum", action="store_true", help="do not check archives fetched by hand")
        if name == "cub":
            continue
        add(
            "--workers",
            type=number(int, at_least(1)),
            default=os.cpu_count() or 1,
            help="processes (default: %(default)s)",
        )
        if name == "voc":
            add("--no-sbd", action="store_true", help="do without SegmentationClassAug; only full supervision needs it")
            continue
        add("--split", nargs="+", choices=("train", "val"), default=["train", "val"], help="default: both")
        add("--json", type=Path, help="instances JSON (default: ROOT/annotations/instances_<split>2014.json)")
        add("--images", type=Path, help="folder of its images; they are linked into ROOT/<split>2014/")
        add("--crowd", choices=("paint", "ignore"), default="paint", help="crowd regions: their class, or 255")
        add("--overwrite", action="store_true", help="paint all masks again")
    _add_masks(commands)
    return parser.parse_args()


def _add_masks(commands: Any) -> None:
    """The command that converts masks."""
    command = commands.add_parser("masks", help="convert masks of other forms into palette PNGs of label indices")
    command.set_defaults(run=prepare_masks)
    add = command.add_argument
    add("--source", type=Path, required=True, help="folder of masks: PNG, BMP, TIFF, WebP or .npy arrays")
    add("--target", type=Path, required=True, help="folder that the palette PNGs go to")
    add("--map", default="", help="labels that replace others, such as 255=1,7=0; coco: the official category ids")
    add("--by-colour", action="store_true", help="read palette images by their colours, not by their indices")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")


def prepare_masks(args: argparse.Namespace) -> None:
    """Converts a folder of masks."""
    print(convert_masks(args.source, args.target, parse_map(args.map), args.by_colour, args.workers))


def main() -> None:
    """Runs the script."""
    args = parse_args()
    args.run(args)


if __name__ == "__main__":
    run_script(main)
