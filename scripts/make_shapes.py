"""Makes the demo data set: textured, coloured shapes on textured grounds, in the layout of PASCAL VOC.

    python scripts/make_shapes.py --root data/shapes
    python scripts/make_shapes.py --root data/shapes --train 1500 --val 200 --size 96 --seed 0

Writes JPEGImages/, SegmentationClass/ (palette PNGs, objects outlined with 255), Annotations/, ImageSets/Segmentation/
{train,val}.txt and classes.txt. The six classes differ in shape, colour and texture; an image holds one to three
objects. An image depends on (seed, split, number) and the size only, so the same call gives the same bytes. A root that
holds the very set already is left as it is.
"""

import argparse
import colorsys
import io
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.contrib.concurrent import process_map

from common.config import script_parser
from common.data.masks import write_mask
from common.errors import UserError, run_script
from common.files import atomic_write, write_json

STAMP = ".make_shapes.json"
FORMAT = 1  # raised when the pictures change, so that an older set is made again
YEARS = {"train": 2026, "val": 2027}  # ids look like VOC's: <year>_<number>


Field = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Kind:
    """What makes a class.

    Attributes:
        outline: signed distance (negative inside) on coordinates where the object reaches about 1 from its centre.
        hue: of the first tone, 0..1.
        texture: a wave on the same coordinates times a frequency; where it is positive the second tone shows.
        second: saturation and value of the second tone.
    """

    name: str
    outline: Field
    hue: float
    texture: Field
    second: tuple[float, float]


def star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Outline with five points."""
    point = np.abs((np.arctan2(y, x) * 5 / (2 * math.pi)) % 1 - 0.5) * 2  # 0 between two points, 1 at a point
    return (np.hypot(x, y) - (0.56 + 0.54 * point**1.3)) * 0.75


def cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Outline of a plus sign."""
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.minimum(x, y) - 0.36, np.maximum(x, y) - 0.98)


def triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Outline with three equal sides."""
    return np.maximum(np.abs(x) * math.sqrt(0.75) - y / 2, y) - 0.56


KINDS = (
    Kind("ball", lambda x, y: np.hypot(x, y) - 0.9, 0.00, lambda u, v: np.sin(2.2 * u), (0.35, 1.0)),
    Kind(
        "box", lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.78,
        0.61, lambda u, v: np.sin(1.6 * u) * np.sin(1.6 * v) * 2, (0.90, 0.45),
    ),
    Kind("tent", triangle, 0.36, lambda u, v: np.sin(2.2 * (u + np.abs((0.5 * v) % 2 - 1))), (0.45, 0.95)),
    Kind("star", star, 0.14, lambda u, v: np.sin(10 * np.arctan2(v, u)), (0.95, 0.65)),
    Kind(
        "ring", lambda x, y: np.abs(np.hypot(x, y) - 0.66) - 0.32,
        0.80, lambda u, v: np.cos(2 * u) + np.cos(2 * v) - 0.7, (0.30, 1.0),
    ),
    Kind("cross", cross, 0.50, lambda u, v: np.sin(2.4 * np.hypot(u, v)), (0.90, 0.50)),
)  # fmt: skip
# Hue, saturation and value of the two tones of a ground; dull beside the objects.
GROUNDS = (
    ((0.09, 0.35, 0.50), (0.10, 0.25, 0.66)),  # wood
    ((0.11, 0.22, 0.82), (0.10, 0.28, 0.70)),  # sand
    ((0.60, 0.10, 0.42), (0.58, 0.08, 0.58)),  # slate
    ((0.25, 0.28, 0.34), (0.22, 0.30, 0.50)),  # moss
    ((0.05, 0.08, 0.72), (0.08, 0.05, 0.86)),  # plaster
)


@dataclass(frozen=True)
class Plan:
    """All that the pictures depend on."""

    train: int
    val: int
    size: int
    multiple: int
    seed: int
    format: int = FORMAT


@dataclass
class Scene:
    """One image: pixels uint8 (H, W, 3), mask uint8 (H, W) with 255 borders, (class, bounding box) of each object."""

    pixels: np.ndarray
    mask: np.ndarray
    objects: list[tuple[str, tuple[int, int, int, int]]]


def make_scene(plan: Plan, split: str, number: int) -> Scene:
    """Draws one image of the set."""
    rng = np.random.default_rng([plan.seed, YEARS[split], number])
    height, width = (_side(rng, plan) for _ in range(2))
    pixels = _ground(rng, height, width)  # H W 3, 0..1
    owner = np.zeros((height, width), dtype=np.uint8)  # 0 ground, i + 1 object i
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    placed = _places(rng, height, width)
    kinds = rng.integers(len(KINDS), size=len(placed))
    for i, ((cy, cx, radius), kind) in enumerate(zip(placed, kinds, strict=True)):
        _draw(rng, pixels, owner, i + 1, KINDS[kind], (y - cy) / radius, (x - cx) / radius, radius)
    pixels += rng.normal(0, 0.015, pixels.shape)  # sensor noise
    classes = np.concatenate([[0], kinds + 1]).astype(np.uint8)
    mask = np.where(_border(owner), np.uint8(255), classes[owner])
    objects = [(KINDS[kind].name, _bounds(owner == i + 1)) for i, kind in enumerate(kinds)]
    return Scene((pixels.clip(0, 1) * 255).round().astype(np.uint8), mask, objects)


def _side(rng: np.random.Generator, plan: Plan) -> int:
    """A side length within a quarter of the nominal size, a multiple of ``plan.multiple``."""
    low, high = math.ceil(plan.size * 0.75 / plan.multiple), int(plan.size * 1.25 / plan.multiple)
    return int(rng.integers(low, max(low, high) + 1)) * plan.multiple


def _places(rng: np.random.Generator, height: int, width: int) -> list[tuple[float, float, float]]:
    """Centre y, x and radius in pixels of one to three objects that hardly cover one another, the largest first."""
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


def _noise(rng: np.random.Generator, height: int, width: int, octaves: tuple[int, ...] = (3, 7, 17)) -> np.ndarray:
    """Smooth random blotches, float32 (H, W), about 0..1."""
    total = np.zeros((height, width), dtype=np.float32)
    for i, cells in enumerate(octaves):
        grid = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) * 0.6**i
    return total / sum(0.6**i for i in range(len(octaves)))


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1)), dtype=np.float32)


def _ground(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A dull ground, float32 (H, W, 3): blotches, in some images with planks or tiles."""
    first, second = GROUNDS[rng.integers(len(GROUNDS))]
    blend = _noise(rng, height, width)
    angle, pitch, pattern = rng.uniform(0, math.pi), rng.uniform(9, 18), rng.integers(3)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    u, v = (x * math.cos(angle) + y * math.sin(angle)) / pitch, (y * math.cos(angle) - x * math.sin(angle)) / pitch
    if pattern == 1:
        blend = 0.6 * blend + 0.4 * np.abs(np.sin(math.pi * u)) ** 0.4
    elif pattern == 2:
        blend = 0.6 * blend + 0.4 * np.minimum(np.abs(np.sin(math.pi * u)), np.abs(np.sin(math.pi * v))) ** 0.4
    blend = np.clip(1.6 * blend - 0.3, 0, 1)[..., None]
    light = 1 + rng.uniform(-0.15, 0.15) * (y / height - 0.5)[..., None] + rng.uniform(-0.08, 0.08)
    return (_colour(*first) * (1 - blend) + _colour(*second) * blend) * light


def _draw(
    rng: np.random.Generator, pixels: np.ndarray, owner: np.ndarray, label: int, kind: Kind,
    y: np.ndarray, x: np.ndarray, radius: float,
) -> None:  # fmt: skip
    """Paints one object and its shadow into ``pixels`` (H, W, 3) and ``owner`` (H, W); ``y`` and ``x`` count radii."""
    angle = rng.uniform(0, 2 * math.pi)
    cos, sin = math.cos(angle), math.sin(angle)

    def turned(dy: float, dx: float) -> tuple[np.ndarray, np.ndarray]:
        return cos * (x - dx) + sin * (y - dy), cos * (y - dy) - sin * (x - dx)

    shadow = np.clip(0.5 - kind.outline(*turned(0.12, 0.10)) * 5, 0, 1) * 0.35
    pixels *= 1 - shadow[..., None]
    u, v = turned(0, 0)
    distance = kind.outline(u, v) * radius  # pixels
    hue, pitch = kind.hue + rng.uniform(-0.03, 0.03), rng.uniform(2.6, 4.0)
    tones = _colour(hue, rng.uniform(0.8, 0.95), rng.uniform(0.75, 0.95)), _colour(hue, *kind.second)
    blend = np.clip(0.5 + 1.6 * kind.texture(u * pitch, v * pitch), 0, 1)[..., None]
    light = 0.95 - 0.16 * (x + y) + 0.10 * np.clip(-distance / (0.2 * radius), 0, 1)  # from the upper left, darker rim
    surface = (tones[0] * (1 - blend) + tones[1] * blend) * light[..., None]
    alpha = np.clip(0.5 - distance, 0, 1)[..., None]
    pixels[:] = pixels * (1 - alpha) + surface.clip(0, 1) * alpha
    owner[distance < 0] = label


def _border(owner: np.ndarray) -> np.ndarray:
    """Ground beside an object, and objects beside another: bool (H, W)."""
    around = np.pad(owner, 1, mode="edge")
    beside = np.stack([around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]])
    return ((beside != owner) & (beside > 0)).any(axis=0)


def _bounds(inside: np.ndarray) -> tuple[int, int, int, int]:
    """VOC's box of a bool (H, W) mask: xmin, ymin, xmax, ymax, counted from 1, the last included."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return int(columns[0]) + 1, int(rows[0]) + 1, int(columns[-1]) + 1, int(rows[-1]) + 1


def annotation(name: str, scene: Scene) -> str:
    """The VOC XML of an image."""
    height, width = scene.mask.shape
    objects = "".join(
        f"<object><name>{kind}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>\n"
        for kind, (x1, y1, x2, y2) in scene.objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>\n<filename>{name}.jpg</filename>\n{size}\n<segmented>1</segmented>\n{objects}</annotation>\n"


def image_name(split: str, number: int) -> str:
    """The id of an image."""
    return f"{YEARS[split]}_{number:06d}"


def write_scene(root: Path, plan: Plan, job: tuple[str, int]) -> None:
    """Makes one image and writes its three files."""
    scene, name = make_scene(plan, *job), image_name(*job)
    encoded = io.BytesIO()
    Image.fromarray(scene.pixels).save(encoded, format="JPEG", quality=92)
    with atomic_write(root / "JPEGImages" / f"{name}.jpg", durable=False) as file:
        file.write(encoded.getvalue())
    write_mask(root / "SegmentationClass" / f"{name}.png", scene.mask)
    with atomic_write(root / "Annotations" / f"{name}.xml", "w", durable=False) as file:
        file.write(annotation(name, scene))


def prepare_root(root: Path, plan: Plan, overwrite: bool) -> bool:
    """Makes way for the set.

    Returns:
        Whether there is anything to do.

    Raises:
        UserError: the folder holds something else.
    """
    stamp = root / STAMP
    found = json.loads(stamp.read_text()) if stamp.is_file() else {}
    if found.get("plan") == asdict(plan) and not overwrite:
        images = sum(1 for _ in (root / "JPEGImages").glob("*.jpg")) if found.get("complete") else 0
        if images == plan.train + plan.val:
            return False
    elif root.is_dir() and any(root.iterdir()) and not overwrite:
        raise UserError(f"{root} is not empty and holds no set of these settings; take another --root or --overwrite")
    if found:  # only what this script made is ever deleted
        for folder in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets"):
            shutil.rmtree(root / folder, ignore_errors=True)
    write_json(stamp, {"plan": asdict(plan), "complete": False})
    return True


def make_set(root: Path, plan: Plan, workers: int) -> None:
    """Writes the whole set; the stamp that calls it complete comes last."""
    splits = {"train": plan.train, "val": plan.val}
    jobs = [(split, number) for split, count in splits.items() for number in range(1, count + 1)]
    process_map(partial(write_scene, root, plan), jobs, max_workers=workers, chunksize=16, desc="images", unit="image")
    for split, count in splits.items():
        with atomic_write(root / "ImageSets" / "Segmentation" / f"{split}.txt", "w") as file:
            file.writelines(f"{image_name(split, number)}\n" for number in range(1, count + 1))
    with atomic_write(root / "classes.txt", "w") as file:
        file.writelines(f"{kind.name}\n" for kind in KINDS)
    write_json(root / STAMP, {"plan": asdict(plan), "complete": True})


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
    if not prepare_root(args.root, plan, args.overwrite):
        print(f"{args.root} holds this data set already ({plan.train} train, {plan.val} val images)")
        return
    make_set(args.root, plan, args.workers)
    print(f"made {plan.train} train and {plan.val} val images of {len(KINDS)} classes in {args.root}")


if __name__ == "__main__":
    run_script(main)
