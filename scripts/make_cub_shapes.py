"""Makes a small data set in the layout of CUB-200-2011: one textured shape an image, its class and its bounding box.

    python scripts/make_cub_shapes.py --root data/cub_shapes
    python scripts/make_cub_shapes.py --root data/cub_shapes --train 600 --test 200 --size 128 --seed 0

Writes images/<class folder>/*.jpg and the tables images.txt, classes.txt, image_class_labels.txt, train_test_split.txt
and bounding_boxes.txt. Classes and grounds are the same as in make_shapes.py; shapes are stretched to boxes of every
aspect that cover a tenth to half of the image, and images are never square. As in CUB, images are numbered class by
class, so both splits are spread over the numbers, and class ids begin with 1. A picture depends only on (seed, split,
number) and the size, so the same call gives the same bytes. A root that holds this very set is left unchanged.
"""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from common.data.cub import TABLES
from common.data.prepare.shapes import (
    KINDS,
    claim_root,
    developed,
    extent,
    paint_ground,
    paint_shape,
    seal_root,
    write_jpeg,
)
from common.run.command import script_parser
from common.run.errors import UserError, run_script
from common.run.files import atomic_write
from common.run.progress import map_in_processes

STAMP = ".make_cub_shapes.json"
FORMAT = 1  # raised when the pictures change, so that an older set is made again
MADE = ("images", *TABLES)
SPLITS = {"train": 5994, "test": 5794}  # part of the seed: no picture is in both splits, or in make_shapes.py's set


@dataclass(frozen=True)
class Plan:
    """The settings that the pictures depend on."""

    train: int
    test: int
    size: int
    seed: int
    format: int = FORMAT


@dataclass(frozen=True)
class Member:
    """An image of the set: its picture's split and number, and its class index and path under images/."""

    split: str
    number: int
    kind: int
    path: str


def members(plan: Plan) -> list[Member]:
    """All images in the order of their ids: class by class, every class equally often in each split."""
    found: list[Member] = []
    for kind, folder in enumerate(class_names()):
        jobs = [(split, number) for split in SPLITS for number in range(kind, getattr(plan, split), len(KINDS))]
        for index, (split, number) in enumerate(jobs, start=1):
            found.append(Member(split, number, kind, f"{folder}/{folder[4:]}_{index:04d}_{len(found) + 1}.jpg"))
    return found


def class_names() -> list[str]:
    """The class names in CUB's spelling: 001.Ball."""
    return [f"{number:03d}.{kind.name.capitalize()}" for number, kind in enumerate(KINDS, start=1)]


def make_picture(plan: Plan, split: str, number: int, kind: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Draws one image: pixels uint8 (H, W, 3) and the shape's extent."""
    rng = np.random.default_rng([plan.seed, SPLITS[split], number])
    height, width = _sides(rng, plan)
    pixels = paint_ground(rng, height, width)  # H W 3, 0..1
    owner = np.zeros((height, width), dtype=np.uint8)  # 0 ground, 1 shape
    radius = rng.uniform(0.19, 0.36) * math.sqrt(height * width)
    stretch = math.exp(rng.uniform(-0.4, 0.4))
    ry = min(radius * stretch, 0.47 * height)
    rx = min(radius / stretch, 0.47 * width)
    cy = rng.uniform(0.9 * ry, height - 0.9 * ry)
    cx = rng.uniform(0.9 * rx, width - 0.9 * rx)
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    paint_shape(rng, pixels, owner, 1, KINDS[kind], (y - cy) / ry, (x - cx) / rx, math.sqrt(ry * rx))
    return developed(rng, pixels), extent(owner == 1)


def _sides(rng: np.random.Generator, plan: Plan) -> tuple[int, int]:
    """Height and width: one of at most the nominal size, the other at least a twentieth shorter."""
    longer = rng.uniform(0.8, 1) * plan.size
    shorter = longer * rng.uniform(0.65, 0.95)
    sides = round(longer), min(round(shorter), round(longer) - 1)
    return sides if rng.random() < 0.4 else sides[::-1]


def write_member(root: Path, plan: Plan, member: Member) -> tuple[int, int, int, int]:
    """Makes one image and writes it; returns the shape's extent."""
    pixels, box = make_picture(plan, member.split, member.number, member.kind)
    write_jpeg(root / "images" / member.path, pixels)
    return box


def make_set(root: Path, plan: Plan, workers: int) -> None:
    """Writes the whole set; its stamp, which marks it as complete, comes last."""
    images = members(plan)
    write = partial(write_member, root, plan)
    extents = map_in_processes(write, images, workers, "images")
    boxes = [(left, top, right - left, bottom - top) for left, top, right, bottom in extents]
    rows: dict[str, Sequence[object]] = {
        "images.txt": [image.path for image in images],
        "classes.txt": class_names(),
        "image_class_labels.txt": [image.kind + 1 for image in images],
        "train_test_split.txt": [int(image.split == "train") for image in images],
        "bounding_boxes.txt": [" ".join(f"{value:.1f}" for value in box) for box in boxes],
    }
    for name in TABLES:
        with atomic_write(root / name, "w") as file:
            file.writelines(f"{number} {row}\n" for number, row in enumerate(rows[name], start=1))
    seal_root(root / STAMP, plan)


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__)
    root = Path("data/cub_shapes")
    parser.add_argument("--root", type=Path, default=root, help="where to put it (default: %(default)s)")
    for flag, default, text in (
        ("--train", 600, "images of the training split"),
        ("--test", 200, "images of the test split"),
        ("--size", 128, "longest side in pixels"),
        ("--seed", 0, "another seed gives other pictures"),
        ("--workers", os.cpu_count() or 1, "processes"),
    ):
        parser.add_argument(flag, type=int, default=default, help=f"{text} (default: {default})")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")
    return parser.parse_args()


def main() -> None:
    """Runs the script."""
    args = parse_args()
    if min(args.train, args.test, args.workers) < 1 or args.seed < 0:
        raise UserError("--train, --test and --workers start at 1, --seed at 0")
    if args.size < 32:
        raise UserError(f"--size {args.size} is too small; it starts at 32")
    plan = Plan(args.train, args.test, args.size, args.seed)
    if not claim_root(args.root / STAMP, plan, "images/*/*.jpg", plan.train + plan.test, MADE, args.overwrite):
        print(f"{args.root} holds this data set already ({plan.train} training, {plan.test} test images)")
        return
    make_set(args.root, plan, args.workers)
    print(f"made {plan.train} training and {plan.test} test images of {len(KINDS)} classes in {args.root}")


if __name__ == "__main__":
    run_script(main)
