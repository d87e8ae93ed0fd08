"""Textured, coloured shapes on textured grounds, which the generated data sets show, and the folders of these sets."""

import colorsys
import io
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.run.errors import UserError
from common.run.files import atomic_write, write_json
from common.run.text import read_json_object

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Kind:
    """The look of a class.

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
    x = np.abs(x)
    y = np.abs(y)
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


def _noise(rng: np.random.Generator, height: int, width: int, octaves: tuple[int, ...] = (3, 7, 17)) -> np.ndarray:
    """Smooth random blotches, float32 (H, W), about 0..1."""
    total = np.zeros((height, width), dtype=np.float32)
    for i, cells in enumerate(octaves):
        grid = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) * 0.6**i
    return total / sum(0.6**i for i in range(len(octaves)))


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1)), dtype=np.float32)


def paint_ground(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A dull ground, float32 (H, W, 3) of about 0..1: blotches, in some images with planks or tiles."""
    first, second = GROUNDS[rng.integers(len(GROUNDS))]
    blend = _noise(rng, height, width)
    angle = rng.uniform(0, math.pi)
    pitch = rng.uniform(9, 18)
    pattern = rng.integers(3)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    u = (x * math.cos(angle) + y * math.sin(angle)) / pitch
    v = (y * math.cos(angle) - x * math.sin(angle)) / pitch
    if pattern == 1:
        blend = 0.6 * blend + 0.4 * np.abs(np.sin(math.pi * u)) ** 0.4
    elif pattern == 2:
        blend = 0.6 * blend + 0.4 * np.minimum(np.abs(np.sin(math.pi * u)), np.abs(np.sin(math.pi * v))) ** 0.4
    blend = np.clip(1.6 * blend - 0.3, 0, 1)[..., None]
    light = 1 + rng.uniform(-0.15, 0.15) * (y / height - 0.5)[..., None] + rng.uniform(-0.08, 0.08)
    return (_colour(*first) * (1 - blend) + _colour(*second) * blend) * light


def paint_shape(
    rng: np.random.Generator, pixels: np.ndarray, owner: np.ndarray, label: int, kind: Kind,
    y: np.ndarray, x: np.ndarray, radius: float,
) -> None:  # fmt: skip
    """Paints one object and its shadow into ``pixels`` (H, W, 3), and its ``label`` into ``owner`` (H, W).

    Args:
        y: Distance of every pixel (H, W) below the object's centre, in radii.
        x: Distance to the right of it.
        radius: In pixels.
    """
    angle = rng.uniform(0, 2 * math.pi)
    cos = math.cos(angle)
    sin = math.sin(angle)

    def turned(dy: float, dx: float) -> tuple[np.ndarray, np.ndarray]:
        return cos * (x - dx) + sin * (y - dy), cos * (y - dy) - sin * (x - dx)

    shadow = np.clip(0.5 - kind.outline(*turned(0.12, 0.10)) * 5, 0, 1) * 0.35
    pixels *= 1 - shadow[..., None]
    u, v = turned(0, 0)
    distance = kind.outline(u, v) * radius  # pixels
    hue = kind.hue + rng.uniform(-0.03, 0.03)
    pitch = rng.uniform(2.6, 4.0)
    tones = _colour(hue, rng.uniform(0.8, 0.95), rng.uniform(0.75, 0.95)), _colour(hue, *kind.second)
    blend = np.clip(0.5 + 1.6 * kind.texture(u * pitch, v * pitch), 0, 1)[..., None]
    light = 0.95 - 0.16 * (x + y) + 0.10 * np.clip(-distance / (0.2 * radius), 0, 1)  # from the upper left, darker rim
    surface = (tones[0] * (1 - blend) + tones[1] * blend) * light[..., None]
    alpha = np.clip(0.5 - distance, 0, 1)[..., None]
    pixels[:] = pixels * (1 - alpha) + surface.clip(0, 1) * alpha
    owner[distance < 0] = label


def developed(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """The uint8 picture of painted ``pixels`` (H, W, 3) of 0..1, which get a sensor's noise."""
    pixels += rng.normal(0, 0.015, pixels.shape)
    return (pixels.clip(0, 1) * 255).round().astype(np.uint8)


def extent(inside: np.ndarray) -> tuple[int, int, int, int]:
    """The box of a bool (H, W) mask in pixels counted from 0: left, top, right, bottom, the last two excluded."""
    rows = np.flatnonzero(inside.any(axis=1))
    columns = np.flatnonzero(inside.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def write_jpeg(path: Path, pixels: np.ndarray) -> None:
    """Writes uint8 pixels (H, W, 3)."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format="JPEG", quality=92)
    with atomic_write(path, durable=False) as file:
        file.write(encoded.getvalue())


def claim_root(stamp: Path, plan: Any, images: str, count: int, made: Sequence[str], overwrite: bool) -> bool:
    """Clears the folder of a generated set, which the stamp describes.

    Args:
        plan: A dataclass of all settings of the set.
        images: Pattern of the set's images, of which there are ``count`` in the end.
        made: The files and folders of the set.

    Returns:
        Whether the set has to be made; `seal_root` follows then.

    Raises:
        UserError: the folder holds other files or another set.
    """
    root = stamp.parent
    found = read_json_object(stamp, "the record of the set") if stamp.is_file() else {}
    if found.get("plan") == asdict(plan) and not overwrite:
        if found.get("complete") and sum(1 for _ in root.glob(images)) == count:
            return False
    elif root.is_dir() and any(root.iterdir()) and not overwrite:
        raise UserError(f"{root} is not empty and holds no set of these settings; take another --root or --overwrite")
    for path in (root / name for name in made) if found else ():  # files of other origin are never deleted
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    write_json(stamp, {"plan": asdict(plan), "complete": False})
    return True


def seal_root(stamp: Path, plan: Any) -> None:
    """Marks a set as complete."""
    write_json(stamp, {"plan": asdict(plan), "complete": True})
