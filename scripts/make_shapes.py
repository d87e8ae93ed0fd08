"""Makes the demo data set: textured, coloured shapes on textured grounds, in the layout of PASCAL VOC.

    python scripts/make_shapes.py --root data/shapes
    python scripts/make_shapes.py --root data/shapes --train 1500 --val 200 --size 96 --seed 0

Writes JPEGImages/, SegmentationClass/ (palette PNGs, objects outlined with 255), Annotations/, ImageSets/Segmentation/
{train,val}.txt and classes.txt. The six classes differ in shape, colour and texture; an image holds one to three
objects. An image depends only on (seed, split, number) and the size, so the same call gives the same bytes. A root that
holds this very set is left unchanged.
"""

import argparse
import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from common.data.masks import write_mask
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

STAMP = ".make_shapes.json"
FORMAT = 1  # raised when the pictures change, so that an older set is made again
MADE = ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets")
YEARS = {"train": 2026, "val": 2027}  # ids look like VOC's: <year>_<number>


@dataclass(frozen=True)
class Plan:
    """The settings that the pictures depend on."""

    train: int
    val: int
    size: int
    multiple: int
    seed: int
    format: int = FORMAT


@dataclass
class Scene:
    """One image: pixels uint8 (H, W, 3), mask uint8 (H, W) with 255 borders, (class, extent) of each object."""

    pixels: np.ndarray
    mask: np.ndarray
    objects: list[tuple[str, tuple[int, int, int, int]]]


def make_scene(plan: Plan, split: str, number: int) -> Scene:
    """Draws one image of the set."""
    rng = np.random.default_rng([plan.seed, YEARS[split], number])
    height, width = (_side(rng, plan) for _ in range(2))
    pixels = paint_ground(rng, height, width)  # H W 3, 0..1
    owner = np.zeros((height, width), dtype=np.uint8)  # 0 ground, i + 1 object i
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    placed = _places(rng, height, width)
    kinds = rng.integers(len(KINDS), size=len(placed))
    for i, ((cy, cx, radius), kind) in enumerate(zip(placed, kinds, strict=True)):
        paint_shape(rng, pixels, owner, i + 1, KINDS[kind], (y - cy) / radius, (x - cx) / radius, radius)
    classes = np.concatenate([[0], kinds + 1]).astype(np.uint8)
    mask = np.where(_border(owner), np.uint8(255), classes[owner])
    objects = [(KINDS[kind].name, extent(owner == i + 1)) for i, kind in enumerate(kinds)]
    return Scene(developed(rng, pixels), mask, objects)


def _side(rng: np.random.Generator, plan: Plan) -> int:
    """A side length within a quarter of the nominal size, a multiple of ``plan.multiple``."""
    low = math.ceil(plan.size * 0.75 / plan.multiple)
    high = int(plan.size * 1.25 / plan.multiple)
    return int(rng.integers(low, max(low, high) + 1)) * plan.multiple


def _places(rng: np.random.Generator, height: int, width: int) -> list[tuple[float, float, float]]:
    """Centre y, x and radius in pixels of one to three objects with little overlap, the largest first."""
    count = rng.choice([1, 2, 3], p=[0.25, 0.40, 0.35])
    radii = np.sort(rng.uniform(0.15, (0.40, 0.33, 0.28)[count - 1], count))[::-1] * math.sqrt(height * width)
    placed: list[tuple[float, float, float]] = []
    for radius in radii:
        radius = min(radius, 0.45 * min(height, width))
        for _ in range(30):
            cy, cx = (rng.uniform(0.85 * radius, side - 0.85 * radius) for side in (height, width))
            if all(math.hypot(cy - py, cx - px) > 0.95 * (radius + pr) for py, px, pr in placed):
                placed.append((cy, cx, radius))
                break
    return placed


def _border(owner: np.ndarray) -> np.ndarray:
    """Ground beside an object, and objects beside another: bool (H, W)."""
    around = np.pad(owner, 1, mode="edge")
    beside = np.stack([around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]])
    return ((beside != owner) & (beside > 0)).any(axis=0)


def annotation(name: str, scene: Scene) -> str:
    """The VOC XML of an image; boxes count pixels from 1 and include the last."""
    height, width = scene.mask.shape
    objects = "".join(
        f"<object><name>{kind}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n"
        for kind, (x1, y1, x2, y2) in scene.objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>\n<filename>{name}.jpg</filename>\n{size}\n<segmented>1</segmented>\n{objects}</annotation>\n"


def image_name(split: str, number: int) -> str:
    """The id of an image."""
    return f"{YEARS[split]}_{number:06d}"


def write_scene(root: Path, plan: Plan, job: tuple[str, int]) -> None:
    """Makes one image and writes its three files."""
    scene = make_scene(plan, *job)
    name = image_name(*job)
    write_jpeg(root / "JPEGImages" / f"{name}.jpg", scene.pixels)
    write_mask(root / "SegmentationClass" / f"{name}.png", scene.mask)
    with atomic_write(root / "Annotations" / f"{name}.xml", "w", durable=False) as file:
        file.write(annotation(name, scene))


def make_set(root: Path, plan: Plan, workers: int) -> None:
    """Writes the whole set; its stamp, which marks it as complete, comes last."""
    splits = {"train": plan.train, "val": plan.val}
    jobs = [(split, number) for split, count in splits.items() for number in range(1, count + 1)]
    map_in_processes(partial(write_scene, root, plan), jobs, workers, "images")
    for split, count in splits.items():
        with atomic_write(root / "ImageSets" / "Segmentation" / f"{split}.txt", "w") as file:
            file.writelines(f"{image_name(split, number)}\n" for number in range(1, count + 1))
    with atomic_write(root / "classes.txt", "w") as file:
        file.writelines(f"{kind.name}\n" for kind in KINDS)
    seal_root(root / STAMP, plan)


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--root", type=Path, default=Path("data/shapes"), help="where to put it (default: %(default)s)")
    for flag, default, text in (
        ("--train", 1500, "images of the train list"),
        ("--val", 200, "images of the val list"),
        ("--size", 96, "nominal side in pixels; sides vary by a quarter"),
        ("--multiple", 8, "sides are multiples of this"),
        ("--seed", 0, "another seed gives other pictures"),
        ("--workers", os.cpu_count() or 1, "processes"),
    ):
        parser.add_argument(flag, type=int, default=default, help=f"{text} (default: {default})")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")
    return parser.parse_args()


def main() -> None:
    """Runs the script."""
    args = parse_args()
    if min(args.train, args.multiple, args.workers) < 1 or min(args.val, args.seed) < 0:
        raise UserError("--train, --multiple and --workers start at 1, --val and --seed at 0")
    if args.size < max(32, args.multiple):
        raise UserError(f"--size {args.size} is too small; it starts at 32 and at --multiple")
    plan = Plan(args.train, args.val, args.size, args.multiple, args.seed)
    if not claim_root(args.root / STAMP, plan, "JPEGImages/*.jpg", plan.train + plan.val, MADE, args.overwrite):
        print(f"{args.root} holds this data set already ({plan.train} train, {plan.val} val images)")
        return
    make_set(args.root, plan, args.workers)
    print(f"made {plan.train} train and {plan.val} val images of {len(KINDS)} classes in {args.root}")


if __name__ == "__main__":
    run_script(main)
