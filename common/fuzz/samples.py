"""Sound files of every kind that the project reads, as bytes; `common.fuzz.engine` mutates them."""

import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as safetensors_bytes

from common.data.agreement import write_agreement
from common.data.cub import TABLES
from common.data.masks import write_mask
from common.data.seeds import write_seed
from common.data.segments import write_entries, write_labels
from common.data.stamp import SEEDS, Stamp
from common.score.boxes import HITS, THRESHOLDS, BoxFile

CLASSES = ("cat", "dog", "cow")
SHAPE = (7, 9)
SEED = {0: np.random.default_rng(0).random(SHAPE, dtype=np.float32), 2: np.ones(SHAPE, np.float32)}


def as_npy(content: Any) -> bytes:
    """A file of NumPy's."""
    stream = io.BytesIO()
    np.save(stream, content, allow_pickle=True)
    return stream.getvalue()


def as_torch(content: Any, is_zip: bool = True) -> bytes:
    """A file of PyTorch's."""
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=is_zip)
    return stream.getvalue()


def seed_files() -> list[bytes]:
    """Seeds as dictionaries, and in IRNet's form."""
    irn = {"keys": torch.tensor([0, 2]), "high_res": np.stack([SEED[0], SEED[2]])}
    return [as_npy(np.array(content, dtype=object)) for content in (SEED, irn)] + [as_npy(SEED[0])]


def compact_seeds() -> list[bytes]:
    """Seeds without pickle."""
    with tempfile.TemporaryDirectory() as folder:
        return [write_seed(folder, "a", SEED, "npz").read_bytes()]


def label_tables() -> list[bytes]:
    """Tables as dictionaries of text and integer keys."""
    tables = ({"2007_000001": np.eye(3)[0]}, {2007000001: np.eye(3, dtype=np.float32)[1]})
    return [as_npy(np.array(table, dtype=object)) for table in tables]


def packed_labels() -> list[bytes]:
    """A table without pickle."""
    stream = io.BytesIO()
    bits = np.packbits(np.eye(3, dtype=np.uint8)[:1], axis=1)
    np.savez_compressed(stream, names=np.array(["2007_000001"], dtype="S"), bits=bits, num_classes=np.int64(3))
    return [stream.getvalue()]


def instances() -> list[bytes]:
    """Instances JSON with polygons and a run-length code."""
    images = [{"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "height": 4, "width": 5}]
    regions = [
        {"id": 1, "image_id": 9, "category_id": 1, "segmentation": [[0, 0, 3, 0, 3, 3]], "iscrowd": 0},
        {
            "id": 2,
            "image_id": 9,
            "category_id": 2,
            "segmentation": {"size": [4, 5], "counts": [2, 3, 15]},
            "iscrowd": 1,
        },
    ]
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(CLASSES)]
    return [json.dumps({"images": images, "annotations": regions, "categories": categories}).encode()]


def state_dicts() -> list[bytes]:
    """Weights in both formats of PyTorch, plain and nested."""
    state = {"a.weight": torch.ones(3, 2), "b": torch.zeros(2, dtype=torch.int64)}
    return [as_torch(state), as_torch({"model": state, "epoch": 3}), as_torch(state, is_zip=False)]


def safetensors_files() -> list[bytes]:
    """Weights in the format of safetensors."""
    return [safetensors_bytes({"a.weight": torch.ones(3, 2), "b": torch.zeros(2)})]


def pictures(modes: dict[str, str]) -> list[bytes]:
    """Images by format: modes with spaces between."""
    found = []
    for kind, names in modes.items():
        for mode in names.split():
            stream = io.BytesIO()
            exif = (
                {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}
                if kind == "JPEG"
                else {}
            )
            image = Image.new(mode, SHAPE[::-1])
            image.save(stream, kind, **exif)
            found.append(stream.getvalue())
    return found


IMAGES = {
    "JPEG": "RGB L CMYK", "PNG": "RGB P L I;16 1 RGBA LA", "BMP": "RGB L", "WEBP": "RGB", "TIFF": "RGB CMYK F I;16",
    "GIF": "P",
}  # fmt: skip


def masks() -> list[bytes]:
    """Masks of label indices, and other images."""
    with tempfile.TemporaryDirectory() as folder:
        write_mask(Path(folder) / "a.png", np.arange(63, dtype=np.uint8).reshape(SHAPE) % 4)
        own = (Path(folder) / "a.png").read_bytes()
    return [own, *pictures({"PNG": "P L 1", "TIFF": "L", "JPEG": "L"})]


def archives() -> list[bytes]:
    """Archives of two files, as tar and zip of several compressions."""
    found = []
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode) as tar:
            for name in ("JPEGImages/a.jpg", "JPEGImages/b/c.jpg"):
                entry = tarfile.TarInfo(name)
                entry.size = 100
                tar.addfile(entry, io.BytesIO(b"hello" * 20))
        found.append(stream.getvalue())
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            archive.writestr("JPEGImages/a.jpg", b"hello" * 20)
        found.append(stream.getvalue())
    return found


def cub_tables() -> list[bytes]:
    """The five tables in one file, separated by a null byte."""
    tables = {
        "images.txt": "1 001.A/a_1.jpg\n2 002.B/b_1.jpg\n", "classes.txt": "1 001.A\n2 002.B\n",
        "image_class_labels.txt": "1 1\n2 2\n", "train_test_split.txt": "1 1\n2 0\n",
        "bounding_boxes.txt": "1 1.0 2.0 3.0 4.0\n2 0 0 1 1\n",
    }  # fmt: skip
    return ["\0".join(tables[name] for name in TABLES).encode()]


def matlab_files() -> list[bytes]:
    """A mask as SBD has it."""

    def element(kind: int, content: bytes) -> bytes:
        return kind.to_bytes(4, "little") + len(content).to_bytes(4, "little") + content + bytes(-len(content) % 8)

    def words(*values: int) -> bytes:
        return b"".join(value.to_bytes(4, "little") for value in values)

    array = element(6, words(9, 0)) + element(5, words(2, 3)) + element(1, b"") + element(2, bytes(range(6)))
    fields = (5).to_bytes(2, "little") + (4).to_bytes(2, "little") + words(16)
    names = element(1, b"Segmentation".ljust(16, b"\0"))
    struct = (
        element(6, words(2, 0)) + element(5, words(1, 1)) + element(1, b"GTcls") + fields + names + element(14, array)
    )
    return [b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + element(14, struct)]


def texts(*contents: str) -> Callable[[], list[bytes]]:
    """Samples that are text."""
    return lambda: [content.encode() for content in contents]


def written(write: Callable[[Path], object], name: str) -> bytes:
    """The file of that name that a writer leaves in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return (Path(folder) / name).read_bytes()


def segment_maps() -> list[bytes]:
    """Label maps of segments without pickle."""
    maps = np.arange(63).reshape(SHAPE) % 5, np.arange(63).reshape(SHAPE) * 9
    return [written(partial(_write_map, labels), "a.npz") for labels in maps]


def _write_map(labels: np.ndarray, folder: Path) -> None:
    write_labels(folder / "a.npz", labels)


def segment_pictures() -> list[bytes]:
    """Label maps of segments as PNGs of 8 and 16 bits."""
    return pictures({"PNG": "L P I;16"})


def region_lists() -> list[bytes]:
    """Regions that may overlap: one image's, of SAM and in plain run lengths, and a whole data set's."""
    half = np.zeros(SHAPE, dtype=bool)
    half[:4] = True
    of_sam = written(lambda folder: write_entries(folder / "a.json", [half, ~half], [0.9, 0.5]), "a.json")
    plain = {"segmentation": {"size": list(SHAPE), "counts": [3, 10, 50]}, "score": 0.5, "image_id": 9}
    return [of_sam, json.dumps([plain]).encode(), json.dumps({"images": [{"id": 9}], "annotations": [plain]}).encode()]


def agreements() -> list[bytes]:
    """An agreement of three runs."""
    counts = np.arange(63).reshape(SHAPE) % 4
    return [written(lambda folder: write_agreement(folder, "a", counts, 3), "a.npz")]


def box_files() -> list[bytes]:
    """The boxes of two images."""
    count = 2
    steps = len(THRESHOLDS)
    corners = np.tile([1, 2, 5, 6], (count, 1)).astype(np.int16)
    own = BoxFile(
        ids=np.array(["a", "b"]), side=np.array(9), threshold=np.array(0.1), labels=np.array([0, 2]),
        first=np.array([0, 1]), outcomes=np.array(["right", "class"]), hits=np.ones((count, len(HITS)), dtype=bool),
        true_boxes=corners, first_boxes=corners, known_boxes=corners, known_ious=np.ones(count),
        boxes=np.repeat(corners[:, None], steps, axis=1), ious=np.ones((count, steps)),
        maps=np.stack([SEED[0]] * count),
    )  # fmt: skip
    return [written(lambda folder: own.write(folder / "a.npz"), "a.npz")]


def stamps() -> list[bytes]:
    """The stamp of a folder."""
    settings = {"checkpoint": "a.pth", "infer": {"scales": [1.0, 0.5]}, "classes": list(CLASSES)}
    return [json.dumps(Stamp(SEEDS, "cti", settings, {"train": 2}, {"a": "5f0c"}).as_dict()).encode()]


def scores() -> list[bytes]:
    """The JSON of an evaluation, and of one without thresholds."""
    point = {
        "threshold": 0.4, "mIoU": 61.5, "mean_precision": 70.0, "absent": ["cow"],
        "classes": {"background": {"IoU": 80.0, "recall": 90.0}, "cat": {"IoU": 43.0, "recall": 0.0}},
    }  # fmt: skip
    both = {"task": "cam", "source": "experiment/x/dict", "list": "train", "images": 6, "warnings": ["odd"]}
    curve = {"best": point, "fixed": point, "thresholds": [0.3, 0.4], "mIoU": [60.0, 61.5]}
    return [json.dumps({**both, **curve}).encode(), json.dumps({**both, "best": {**point, "threshold": None}}).encode()]


def cards() -> list[bytes]:
    """The JSON of an evaluation card."""
    entry = {"value": 61.5, "interval": [60.0, 63.0]}
    point = {
        "means": dict.fromkeys(("mIoU", "extra", "missed"), entry), "classes": {"cat": {"IoU": entry}},
        "sizes": {"small": {"objects": 3, "recall": {"value": None, "interval": [None, None]}}},
    }  # fmt: skip
    return [json.dumps({"labels": ["background", "cat"], "main": "best", "points": {"best": point}}).encode()]


def pipeline_records() -> list[bytes]:
    """The record of a finished pipeline."""
    row = {"stage": "seeds", "list": "train", "images": 6, "threshold": 0.4, "mIoU": 61.5, "gain": 0.0}
    stage = {"command": ["a.py", "--name", "x"], "seconds": 1.5, "settings": {"a": 1}, "files": {"x/dict": "5f0c"}}
    return [json.dumps({"stages": {"scores": stage}, "table": [row], "unit": "percent"}).encode()]
