"""Seed files: one per image, the CAMs of the classes in its label.

Two formats, which every reader accepts:

* ``<id>.npy`` - the format of the papers' tools: a pickled dictionary {class index: float32 (H, W)}.
* ``<id>.npz`` - compact and pickle-free: ``keys`` (n,), ``cams`` float16 (n, h, w) at a reduced stride, ``size``
  (H, W).

The ``.npy`` files of IRNet and CRT are read as well: {"keys": (n,) class indices, "high_res": (n, H, W), "cam": the
same at a quarter of the size}.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from common.run.errors import UserError, first_line
from common.run.files import AGAIN, atomic_write, load_npy, load_npz

Seed = dict[int, np.ndarray]
FORMATS = ("npy", "npz")
LEAST_MAPS = 2**27  # bytes that the maps of a compact file may always take
MOST_GROWTH = 1024  # times its size that they may take beyond that: float16 at a stride of 16 takes 512

DIVERGED = (
    "holds values that are not finite (nan or inf). The network that made it has diverged, or the file is damaged: "
    "make it again with sound weights."
)


def seed_path(folder: str | Path, image_id: str) -> Path | None:
    """The seed file of an image in whichever format it has, or None."""
    for suffix in FORMATS:
        path = Path(folder) / f"{image_id}.{suffix}"
        if path.is_file():
            return path
    return None


def find_seed(folder: str | Path, image_id: str) -> Path:
    """The seed file of an image, as `seed_path`.

    Raises:
        UserError: there is none.
    """
    path = seed_path(folder, image_id)
    if path is None:
        raise UserError(f"no file of {image_id} in {folder}")
    return path


def write_seed(folder: str | Path, image_id: str, seed: Seed, fmt: str = "npy", stride: int = 4) -> Path:
    """Writes one seed file, atomically.

    Args:
        seed: {class index: float32 (H, W)}, values in [0, 1].
        fmt: ``npy`` or ``npz``.
        stride: Factor by which ``npz`` reduces the maps (area average).
    """
    path = Path(folder) / f"{image_id}.{fmt}"
    with atomic_write(path, durable=False) as file:
        if fmt == "npy":
            np.save(file, np.array(seed, dtype=object), allow_pickle=True)
        else:
            keys = np.array(sorted(seed), dtype=np.int64)
            height, width = seed[int(keys[0])].shape if len(keys) else (0, 0)
            small = (max(width // stride, 1), max(height // stride, 1))
            cams = [cv2.resize(seed[int(key)], small, interpolation=cv2.INTER_AREA) for key in keys]
            stacked = np.stack(cams).astype(np.float16) if cams else np.zeros((0, 1, 1), np.float16)
            np.savez(file, keys=keys, cams=stacked, size=np.array([height, width], dtype=np.int64))
    return path


def read_seed(path: str | Path) -> Seed:
    """Reads a seed file of either format: {class index: float32 (H, W)}, keys ascending.

    Raises:
        UserError: the file is missing, damaged, unsafe, or no dictionary of maps of one size.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return _read_compact(path)
    content = load_npy(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}, not a dictionary of class index to map")
    maps = _by_class(content, path) if {"keys", "high_res"} <= content.keys() else content
    for key in maps:
        if type(key) is bool or not isinstance(key, int | np.integer) or key < 0:
            raise UserError(f"{path} is no seed file: {key!r:.60} is no class index; keys are integers from 0. {AGAIN}")
    seed = {int(key): _map(key, maps[key], path) for key in sorted(maps)}
    shapes = {cam.shape for cam in seed.values()}
    if len(shapes) > 1 or any(len(shape) != 2 for shape in shapes):
        raise UserError(f"{path} holds maps of shapes {sorted(shapes)}; one (H, W) is expected. {AGAIN}")
    return seed


def _by_class(content: dict[Any, Any], path: Path) -> dict[Any, Any]:
    """Turns IRNet's form of a seed into this project's."""
    keys, maps = content["keys"], content["high_res"]
    if isinstance(keys, np.ndarray) and isinstance(maps, np.ndarray) and keys.ndim == 1 and maps.ndim == 3:
        by_class = dict(zip(keys.tolist(), maps, strict=False))
        if len(by_class) == len(keys) == len(maps):
            return by_class
    raise UserError(
        f"{path} is no seed file: its keys are no list of distinct class indices, one for each map. {AGAIN}"
    )


def _map(key: int, values: Any, path: Path) -> np.ndarray:
    """The map of a class, float32.

    Raises:
        UserError: it is none of finite real numbers.
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        kind = f"values of type {values.dtype}" if isinstance(values, np.ndarray) else f"a {type(values).__name__}"
        raise UserError(f"{path} is no seed file: class {key} has {kind} where a map of real numbers belongs. {AGAIN}")
    cam = np.asarray(values, dtype=np.float32)
    if not _is_finite(cam):
        raise UserError(f"{path} is no usable seed: the map of class {key} {DIVERGED}")
    return cam


def _is_finite(values: np.ndarray) -> bool:
    """Whether all values are; their extremes tell, in a fifth of the time."""
    return not values.size or bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def _read_compact(path: Path) -> Seed:
    try:
        keys, cams, size = load_npz(path, ("keys", "cams", "size"))
        height, width = size.tolist()
        _check_compact(keys, cams, height, width, LEAST_MAPS + MOST_GROWTH * path.stat().st_size)
    except UserError:
        raise
    except Exception as error:  # zip, format and key errors of a damaged or foreign file
        raise UserError(
            f"{path} is no seed file of this project, or damaged ({type(error).__name__}: {first_line(error)}). {AGAIN}"
        ) from error
    small = cams.astype(np.float32)
    if not _is_finite(small):
        raise UserError(f"{path} is no usable seed: a map of it {DIVERGED}")
    maps = {
        int(key): cv2.resize(cam, (width, height), interpolation=cv2.INTER_LINEAR)
        for key, cam in zip(keys, small, strict=True)
    }
    return dict(sorted(maps.items()))


def _check_compact(keys: np.ndarray, cams: np.ndarray, height: Any, width: Any, room: int) -> None:
    """Refuses maps whose description and content disagree, before anything of their stated size is allocated.

    Raises:
        ValueError: they do, or the maps would take more than ``room`` bytes.
    """
    if keys.ndim != 1 or keys.dtype.kind not in "iu" or len(set(keys.tolist())) < len(keys) or min(keys, default=0) < 0:
        raise ValueError("keys are no list of distinct class indices")
    if cams.ndim != 3 or len(cams) != len(keys) or cams.dtype.kind != "f" or min(cams.shape[1:]) < 1:
        raise ValueError(f"cams of shape {cams.shape} and type {cams.dtype} are no maps of {len(keys)} classes")
    if not all(type(side) is int and side >= min(len(keys), 1) for side in (height, width)):
        raise ValueError(f"size is ({height}, {width}), not a height and a width")
    if 4 * len(keys) * height * width > room:
        raise ValueError(f"{len(keys)} maps of {height}x{width} values are out of proportion to the file")
