"""Tiny data sets, and scripts called in this process, for the tests."""

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from common.data.masks import write_mask
from common.run.files import ROOT
from common.run.lock import unlock_all


def script(name: str) -> ModuleType:
    """A script of ``scripts/`` as a module; worker processes find it by its name."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def call(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> int:
    """Runs a script's ``main`` with a command line; its return code. A `UserError` comes through."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    try:
        return script(name).main() or 0
    finally:
        unlock_all()  # as the end of its process does


def run(name: str, *arguments: object) -> subprocess.CompletedProcess:
    """Runs a script as a user does."""
    command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def write_image(path: Path, size: tuple[int, int] = (24, 32), seed: int = 0) -> Path:
    """A JPEG of smooth noise; ``size`` is (H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size[::-1]).save(path, format="JPEG")
    return path


def truncate(path: Path) -> None:
    """Cuts a file to its first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_lines(path: Path, lines: Sequence[object]) -> Path:
    """A text file of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def write_xml(path: Path, names: Sequence[str]) -> None:
    """A VOC annotation with objects of these names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(f"<object><name>{name}</name><difficult>1</difficult></object>" for name in names)
    path.write_text(f"<annotation>{objects}</annotation>")


def make_voc(root: Path, count: int = 6) -> list[str]:
    """VOC layout with one cat in every image (and a person in every second): ids of train, then one of val."""
    ids = [f"2007_{i:06d}" for i in range(1, count + 2)]
    for i, name in enumerate(ids):
        write_image(root / "JPEGImages" / f"{name}.jpg", seed=i)
        write_xml(root / "Annotations" / f"{name}.xml", ["cat", "head"] + ["person"] * (i % 2))
        mask = np.zeros((24, 32), dtype=np.uint8)
        mask[4:12, 4:12], mask[4, 4:12] = 8, 255
        mask[14:20, 4:12] = 15 * (i % 2)
        write_mask(root / "SegmentationClass" / f"{name}.png", mask)
    write_lines(root / "ImageSets" / "Segmentation" / "train.txt", ids[:-1])
    write_lines(root / "ImageSets" / "Segmentation" / "val.txt", ids[-1:])
    return ids


# Path under images/, class id, whether it is a training image, box (x, y, width, height), size (H, W).
CUB = (
    ("001.Wren/Wren_0001_11.jpg", 1, 1, (2.0, 3.0, 10.0, 8.0), (24, 32)),
    ("001.Wren/Wren_0002_12.jpg", 1, 0, (0.0, 0.0, 32.0, 24.0), (24, 32)),
    ("002.Gull/Gull_0001_21.jpg", 2, 1, (4.5, 1.0, 9.0, 20.25), (40, 20)),
    ("002.Gull/Gull_0002_22.jpg", 2, 1, (1.0, 2.0, 3.0, 4.0), (16, 48)),
    ("003.Great_Auk/Great_Auk_0001_31.jpg", 3, 0, (6.0, 6.0, 12.0, 6.0), (24, 24)),
)


def make_cub(root: Path) -> Path:
    """CUB's layout with `CUB` in it; the root."""
    for number, (path, _, _, _, size) in enumerate(CUB):
        write_image(root / "images" / path, size, seed=number)
    columns = {
        "images.txt": [path for path, *_ in CUB],
        "classes.txt": ["001.Wren", "002.Gull", "003.Great_Auk"],
        "image_class_labels.txt": [label for _, label, *_ in CUB],
        "train_test_split.txt": [trains for _, _, trains, *_ in CUB],
        "bounding_boxes.txt": [" ".join(map(str, box)) for *_, box, _ in CUB],
    }
    for name, rows in columns.items():
        write_lines(root / name, [f"{number} {row}" for number, row in enumerate(rows, start=1)])
    return root
