"""Feeds mutated files to the readers of the project: each must give a value, or one clear line.

    python scripts/fuzz.py                              # all readers, 10 seconds each
    python scripts/fuzz.py image mask --seconds 600     # some readers
    python scripts/fuzz.py --list

Inputs that end in anything else (another exception, a signal, a hang, a message of several lines) are saved to
experiment/fuzz/<reader>-<n>, and the exit code is 1. A reader is added by one line in the table of `readers`.
"""

import argparse
import io
import json
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as safetensors_bytes

from common.data.csv_labels import csv_classes, read_csv
from common.data.cub import TABLES, read_tables
from common.data.images import ImageRules, describe_image, image_size, read_image
from common.data.labels import read_labels
from common.data.lists import read_list
from common.data.masks import read_mask, write_mask
from common.data.prepare.coco import paint_mask, read_instances
from common.data.prepare.fetch import unpack
from common.data.prepare.mask_files import read_any_mask
from common.data.prepare.matlab import read_struct_field
from common.data.seeds import read_seed, write_seed
from common.nets.load import state_dict_in
from common.pipeline.stages import read_state
from common.run.config import load_config
from common.run.errors import run_script
from common.run.files import load_npy
from common.run.fuzzing import Reader, fuzz
from common.run.log import read_metrics
from common.score.options import EvaluationConfig, shared_sections

CLASSES = ("cat", "dog", "cow")
SHAPE = (7, 9)
SEED = {0: np.random.default_rng(0).random(SHAPE, dtype=np.float32), 2: np.ones(SHAPE, np.float32)}
SAVED = Path("experiment") / "fuzz"


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


def unpacked(path: Path) -> None:
    """Unpacks into a folder of its own; nothing may be written beside it."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unpack(path, Path(folder), lambda name: name if name.startswith("JPEGImages") else None)


def cub_tables() -> list[bytes]:
    """The five tables in one file, separated by a null byte."""
    tables = {
        "images.txt": "1 001.A/a_1.jpg\n2 002.B/b_1.jpg\n", "classes.txt": "1 001.A\n2 002.B\n",
        "image_class_labels.txt": "1 1\n2 2\n", "train_test_split.txt": "1 1\n2 0\n",
        "bounding_boxes.txt": "1 1.0 2.0 3.0 4.0\n2 0 0 1 1\n",
    }  # fmt: skip
    return ["\0".join(tables[name] for name in TABLES).encode()]


def read_cub(path: Path) -> None:
    """Writes the tables where they belong, and reads them."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        for name, content in zip(TABLES, path.read_bytes().split(b"\0"), strict=False):
            (Path(folder) / name).write_bytes(content)
        read_tables(Path(folder))


def read_table(path: Path) -> None:
    """The classes of a table of labels, then the labels."""
    read_csv(path, csv_classes(path))


def read_and_paint(path: Path) -> None:
    """Instances, and their masks."""
    found = read_instances(path)
    for image_id, size in found.sizes.items():
        if size[0] * size[1] < 10**6:
            paint_mask(size, found.regions.get(image_id, []))


def read_every_way(path: Path) -> None:
    """Size, facts and pixels of an image, as far as it can be read."""
    rules = ImageRules("apply", (0, 1000))
    image_size(path, rules)
    describe_image(path, rules)
    read_image(path, rules)


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


def labels_of(image_id: str, dataset: str) -> Callable[[Path], Any]:
    """Reads a table of labels for one image."""
    return lambda path: read_labels(path, [image_id], CLASSES, dataset)


def read_annotation(path: Path) -> None:
    """The annotation of an image of VOC."""
    read_labels(path.parent, [path.stem], CLASSES, "voc12")


def read_config(path: Path) -> None:
    """A YAML, as a configuration and as that of a run that is evaluated."""
    load_config(EvaluationConfig, path)
    shared_sections(path)


ANNOTATION = (
    '<?xml version="1.0" encoding="utf-8"?><annotation><object><name>cat</name>'
    "<part><name>head</name></part></object></annotation>"
)
CONFIG = "data:\n  root: data/x\n  range: [0, 255]\n  exif: apply\n"


def readers() -> dict[str, Reader]:
    """All readers by name."""
    return {
        "npy": Reader(".npy", load_npy, lambda: [*seed_files(), *label_tables()]),
        "seed_npy": Reader(".npy", read_seed, seed_files),
        "seed_npz": Reader(".npz", read_seed, compact_seeds),
        "labels_npy": Reader(".npy", labels_of("2007_000001", "voc12"), label_tables),
        "labels_npz": Reader(".npz", labels_of("2007_000001", "voc12"), packed_labels),
        "labels_json": Reader(".json", labels_of("000000000009", "coco14"), instances),
        "labels_csv": Reader(".csv", read_table, texts("id,label\na,cat;dog\nb,\n", "id,cat,dog\na,1,0\n")),
        "labels_xml": Reader(".xml", read_annotation, texts(ANNOTATION)),
        "list": Reader(".txt", partial(read_list, dataset="voc12"), texts("2007_000032\n/J/a.jpg /S/a.png\n", "9\n")),
        "cub": Reader(".txt", read_cub, cub_tables),
        "coco": Reader(".json", read_and_paint, instances),
        "matlab": Reader(".mat", lambda path: read_struct_field(path, "GTcls", "Segmentation"), matlab_files),
        "image": Reader(".jpg", read_every_way, lambda: pictures(IMAGES)),
        "mask": Reader(".png", read_mask, masks),
        "any_mask": Reader(".png", read_any_mask, masks),
        "weights": Reader(".pth", state_dict_in, state_dicts),
        "safetensors": Reader(".safetensors", state_dict_in, safetensors_files),
        "config": Reader(".yaml", read_config, texts(CONFIG)),
        "archive": Reader(".tar", unpacked, archives),
        "metrics": Reader(".jsonl", read_metrics, texts('{"step": 1, "loss": 2.0}\n{"step": 2, "kind": "train"}\n')),
        "state": Reader(".json", read_state, texts('{"stages": {"a": {"command": [], "seconds": 1.0}}, "table": []}')),
    }


def main() -> int:
    """Runs the script."""
    table = readers()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", nargs="*", metavar="reader", help=f"of {', '.join(table)}; none: all")
    parser.add_argument("--seconds", type=float, default=10, help="for each reader (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="names the readers and ends")
    args = parser.parse_args()
    unknown = [name for name in args.reader if name not in table]
    if unknown:
        parser.error(f"no reader {unknown[0]}; there are {', '.join(table)}")
    if args.list:
        print("\n".join(table))
        return 0
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    total = failed = 0
    for name in args.reader or table:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = fuzz(table[name], Path(folder), args.seconds, args.seed)
        total += found.total
        failed += len(found.failures)
        print(
            f"{name:<12} {found.total:>8} inputs in {time.monotonic() - start:.0f} s: {found.values} values, "
            f"{found.errors} clear errors, {found.failures.total()} failures",
            flush=True,
        )
        for number, (failure, count) in enumerate(found.failures.most_common()):
            SAVED.mkdir(parents=True, exist_ok=True)
            file = SAVED / f"{name}-{number}{table[name].suffix}"
            file.write_bytes(found.saved[failure])
            print(f"  {count} x {failure}; the first: {file}", flush=True)
    print(f"{total} inputs, {failed} kinds of failures")
    return int(failed > 0)


if __name__ == "__main__":
    run_script(main)
