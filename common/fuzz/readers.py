"""All readers of the project by name, each with sound files to mutate."""

import functools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from common.data.agreement import read_agreement
from common.data.classes import read_classes
from common.data.csv_labels import csv_classes, read_csv
from common.data.cub import TABLES, read_tables
from common.data.images import ImageRules, describe_image, image_size, read_image
from common.data.labels import read_labels
from common.data.lists import read_list
from common.data.masks import read_mask
from common.data.prepare.coco import paint_mask, read_instances
from common.data.prepare.fetch import unpack
from common.data.prepare.mask_files import read_any_mask
from common.data.prepare.matlab import read_struct_field
from common.data.seeds import read_seed
from common.data.segments import SegmentFiles, read_segments
from common.data.stamp import STAMP_FILE, read_stamp
from common.data.thresholds import read_thresholds
from common.fuzz import samples
from common.fuzz.engine import Reader
from common.fuzz.samples import CLASSES, SHAPE, texts
from common.nets.load import state_dict_in
from common.pipeline.options import PipelineConfig
from common.pipeline.recipe import Recipe
from common.pipeline.stages import read_state
from common.pipeline.table import table
from common.run.config import load_config
from common.run.files import load_npy
from common.run.folder import LAST_FILE
from common.run.log import drop_after, read_metrics
from common.run.processes import Processes
from common.score.boxes import BoxFile, thresholds_below
from common.score.card import read_card
from common.score.options import EvaluationConfig, shared_sections
from common.score.per_image import COLUMNS, read_per_image
from common.score.read import read_score
from common.train.checkpoint import Checkpoints
from common.train.course import Position


def unpacked(path: Path) -> None:
    """Unpacks into a folder of its own; nothing may be written beside it."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unpack(path, Path(folder), lambda name: name if name.startswith("JPEGImages") else None)


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


def read_all_segments(path: Path) -> None:
    """One image's segments, and those of a data set in one file."""
    read_segments(path, SHAPE).owners()
    if path.suffix == ".json":
        of_image = SegmentFiles(path, "coco14").find("000000000009")
        if isinstance(of_image, list):
            read_segments(of_image, SHAPE)


def read_regions(path: Path) -> None:
    """The regions of a data set in one file."""
    of_image = SegmentFiles(path, "coco14").find("000000000009")
    if isinstance(of_image, list):
        read_segments(of_image, SHAPE).owners()


def under(name: str, read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Reads a file whose name is fixed: a copy under this name, by its folder."""

    def read_copy(path: Path) -> None:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            (Path(folder) / name).write_bytes(path.read_bytes())
            read(Path(folder))

    return read_copy


def read_both_stamps(folder: Path) -> None:
    """A stamp, and what is asked of it where its folder is written again."""
    stamp = read_stamp(folder)
    sound = read_stamp_of_samples()
    for before, now in ((stamp, sound), (sound, stamp)):
        if before and now:
            now.changes(before), now.outdated(before), now.joined(before).as_dict()


@functools.cache
def read_stamp_of_samples() -> Any:
    """The stamp of the samples."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / STAMP_FILE).write_bytes(samples.stamps()[0])
        return read_stamp(folder)


def tiny_checkpoints(folder: Path) -> Checkpoints:
    """The checkpoints of a network of six weights."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return Checkpoints(folder, model, {"optimizer": optimizer}, {}, Processes(), {"train.batch_size": 4, "ids": "5f0c"})


def checkpoints() -> list[bytes]:
    """The file that a training resumes from."""
    return [samples.written(lambda folder: tiny_checkpoints(folder).save_last(Position(1, 2, 3)), LAST_FILE)]


def read_numbers(path: Path) -> None:
    """A metrics file, as it is and as a run that resumes takes it over."""
    read_metrics(path)
    drop_after(path, 1, True)


def read_boxes(path: Path) -> None:
    """The boxes of a localisation, and the maps that they enclose."""
    thresholds_below(BoxFile.read(path).grey(0))


def read_record(path: Path) -> None:
    """The record of a pipeline, and its table as text."""
    table(read_state(path).get("table", []))


def read_overrides(path: Path) -> None:
    """Words of a command line, a line each, for two configurations."""
    words = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    for cls in (EvaluationConfig, PipelineConfig):
        load_config(cls, None, [word for word in words if word])


ANNOTATION = (
    '<?xml version="1.0" encoding="utf-8"?><annotation><object><name>cat</name>'
    "<part><name>head</name></part></object></annotation>"
)
LABELS = ["background", *CLASSES]
OVERRIDES = "data.root=data/x\ndata.range=[0, 255]\ndata.exif=apply\neval.thresholds=[0.1, 0.6, 0.05]\n"
OF_PIPELINE = "data.dataset=folder\ndata.classes=a b.txt\nflow.fuse=[a, b]\nlists.train=7\nseeds.low=1e-1\n"
ROWS = "best,a,0,background,9,8,7,3,3,2,70.0,1.0,2.0\nbest,a,1,cat,4,5,3,1,2,1,50.0,1.0,2.0\n"
RECIPE = """title: CTI, x
lists: [train]
stages:
  - title: training
    command: a.py --name {name}
results:
  - what: seeds
    source: Table 1
    file: eval_cam.json
    published: 78.1
    expected: [77.0, 79.0]
"""
CONFIG = "data:\n  root: data/x\n  range: [0, 255]\n  exif: apply\n"


def readers() -> dict[str, Reader]:
    """All readers by name."""
    return {
        "npy": Reader(".npy", load_npy, lambda: [*samples.seed_files(), *samples.label_tables()]),
        "seed_npy": Reader(".npy", read_seed, samples.seed_files),
        "seed_npz": Reader(".npz", read_seed, samples.compact_seeds),
        "labels_npy": Reader(".npy", labels_of("2007_000001", "voc12"), samples.label_tables),
        "labels_npz": Reader(".npz", labels_of("2007_000001", "voc12"), samples.packed_labels),
        "labels_json": Reader(".json", labels_of("000000000009", "coco14"), samples.instances),
        "labels_csv": Reader(".csv", read_table, texts("id,label\na,cat;dog\nb,\n", "id,cat,dog\na,1,0\n")),
        "labels_xml": Reader(".xml", read_annotation, texts(ANNOTATION)),
        "list": Reader(".txt", partial(read_list, dataset="voc12"), texts("2007_000032\n/J/a.jpg /S/a.png\n", "9\n")),
        "cub": Reader(".txt", read_cub, samples.cub_tables),
        "coco": Reader(".json", read_and_paint, samples.instances),
        "matlab": Reader(".mat", lambda path: read_struct_field(path, "GTcls", "Segmentation"), samples.matlab_files),
        "image": Reader(".jpg", read_every_way, lambda: samples.pictures(samples.IMAGES)),
        "mask": Reader(".png", read_mask, samples.masks),
        "any_mask": Reader(".png", read_any_mask, samples.masks),
        "weights": Reader(".pth", state_dict_in, samples.state_dicts),
        "safetensors": Reader(".safetensors", state_dict_in, samples.safetensors_files),
        "config": Reader(".yaml", read_config, texts(CONFIG)),
        "archive": Reader(".tar", unpacked, samples.archives),
        "metrics": Reader(".jsonl", read_numbers, texts('{"step": 1, "loss": 2.0}\n{"step": 2, "kind": "train"}\n')),
        "state": Reader(".json", read_record, samples.pipeline_records),
        "segments_npz": Reader(".npz", read_all_segments, samples.segment_maps),
        "segments_png": Reader(".png", read_all_segments, samples.segment_pictures),
        "segments_json": Reader(".json", read_all_segments, samples.region_lists),
        "regions": Reader(".json", read_regions, samples.region_lists),
        "agreement": Reader(".npz", lambda path: read_agreement(path.parent, path.stem, SHAPE), samples.agreements),
        "boxes": Reader(".npz", read_boxes, samples.box_files),
        "stamp": Reader(".json", under(STAMP_FILE, read_both_stamps), samples.stamps),
        "classes": Reader(".txt", read_classes, texts("# mine\ncat\ndog\n\nsea cow\n", "cat\r\ndog")),
        "overrides": Reader(".txt", read_overrides, texts(OVERRIDES, OF_PIPELINE)),
        "checkpoint": Reader(".pth", under(LAST_FILE, lambda folder: tiny_checkpoints(folder).resume()), checkpoints),
        "score": Reader(".json", partial(read_score, needed=["list"]), samples.scores),
        "card": Reader(".json", under("a_card.json", lambda folder: read_card(folder, "a")), samples.cards),
        "per_image": Reader(".csv", partial(read_per_image, labels=LABELS), texts(",".join(COLUMNS) + "\n" + ROWS)),
        "thresholds": Reader(
            ".json", partial(read_thresholds, classes=CLASSES), texts('{"thresholds": {"cat": 0.3, "dog": 1}}')
        ),
        "recipe": Reader(".yaml", Recipe.read, texts(RECIPE)),
    }
