"""Masks exported to annotation tools, read back as the tools read them."""

import json
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from common.data.masks import write_mask
from common.data.prepare.annotations import polygons, row_runs
from common.run.errors import UserError
from tests.datasets import call

CLASSES = ["cat", "dog", "café <b>"]


def scene(seed: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """Labels with several parts, a hole, a line, a single pixel and an ignored border."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, dtype=np.uint8)
    cv2.circle(mask, (25, 30), 18, 1, -1)
    cv2.circle(mask, (25, 30), 7, 0, -1)
    cv2.rectangle(mask, (48, 8), (70, 30), 2, -1)
    cv2.ellipse(mask, (60, 46), (14, 8), float(rng.integers(180)), 0, 360, 3, -1)
    mask[2, 2] = 1
    mask[50:56, 5] = 3
    mask[:, -2:] = 255
    return mask


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two regions."""
    return float((first & second).sum() / max((first | second).sum(), 1))


@pytest.fixture
def masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Three masks in ``masks/``, and ``classes.txt``."""
    monkeypatch.chdir(tmp_path)
    Path("masks").mkdir()
    Path("classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    made = {"a": scene(0), "b": scene(1), "empty": np.zeros((5, 7), dtype=np.uint8)}
    for name, mask in made.items():
        write_mask(f"masks/{name}.png", mask)
    return made


def test_the_tools_read_what_was_written(masks: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = "--masks", "masks", "--out", "out", "--classes", "classes.txt"
    assert call(monkeypatch, "export_masks", *arguments, "--format", "coco", "labelme", "yolo", "cvat") == 0

    coco = COCO("out/coco/annotations.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == CLASSES
    for image in coco.loadImgs(coco.getImgIds()):
        found = np.zeros((image["height"], image["width"]), dtype=np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            pixels = coco.annToMask(annotation)
            found[pixels == 1] = annotation["category_id"]
            assert annotation["area"] == pixels.sum()
        expected = masks[Path(image["file_name"]).stem]
        assert (found == np.where(expected == 255, 0, expected)).all()

    for element in ElementTree.parse("out/cvat/annotations.xml").getroot().iter("image"):
        expected = masks[Path(element.attrib["name"]).stem]
        found = np.zeros_like(expected)
        for runs in element.iter("mask"):
            left, top, width, height = (int(runs.attrib[name]) for name in ("left", "top", "width", "height"))
            lengths = [int(text) for text in runs.attrib["rle"].split(",")]
            pixels = np.repeat(np.arange(len(lengths)) % 2, lengths).reshape(height, width)
            found[top : top + height, left : left + width][pixels == 1] = CLASSES.index(runs.attrib["label"]) + 1
        assert (found == np.where(expected == 255, 0, expected)).all()

    for name, expected in masks.items():
        content = json.loads(Path(f"out/labelme/{name}.json").read_text())
        of_labelme, of_yolo = ({label: np.zeros_like(expected) for label in (1, 2, 3)} for _ in range(2))
        for shape in content["shapes"]:
            canvas = Image.new("L", expected.shape[::-1])
            ImageDraw.Draw(canvas).polygon([tuple(point) for point in shape["points"]], outline=1, fill=1)
            of_labelme[CLASSES.index(shape["label"]) + 1] |= np.array(canvas)
        for line in Path(f"out/yolo/labels/{name}.txt").read_text().splitlines():
            number, *values = line.split()
            points = np.array(values, dtype=float).reshape(-1, 2) * expected.shape[::-1]
            cv2.fillPoly(of_yolo[int(number) + 1], [points.round().astype(np.int32)], 1)
        for label in np.unique(expected[(expected > 0) & (expected < 255)]).tolist():
            assert iou(of_labelme[label] == 1, expected == label) >= 0.98
            assert iou(of_yolo[label] == 1, expected == label) >= 0.98
    assert yaml.safe_load(Path("out/yolo/data.yaml").read_text())["names"] == dict(enumerate(CLASSES))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.floats(0.1, 0.9))
def test_runs_and_polygons_of_any_region(seed: int, height: int, width: int, share: float) -> None:
    """Runs are exact; polygons cover the region, and beyond it cuts alone."""
    pixels = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    runs = row_runs(pixels)
    assert (np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width) == pixels).all()
    found = np.zeros_like(pixels)
    for points in polygons(pixels):
        assert len(points) >= 3 and (points >= 0).all() and (points < (width, height)).all()
        cv2.fillPoly(found, [points.astype(np.int32)], 1)
    assert (found >= pixels).all()


def test_wrong_masks_are_named_and_the_others_exported(
    masks: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mask("masks/c.png", np.full((4, 4), 9, dtype=np.uint8))
    Path("masks/d.png").write_bytes(b"no image")
    arguments = "--masks", "masks", "--format", "coco", "--out", "out", "--classes", "classes.txt"
    assert call(monkeypatch, "export_masks", *arguments) == 1
    said = capsys.readouterr().out
    assert "3 masks written" in said and "2 masks were left out" in said
    assert "c.png has labels without a class (9); there are 3 classes" in said and "d.png" in said
    assert len(json.loads(Path("out/coco/annotations.json").read_text())["images"]) == 3
    with pytest.raises(UserError, match="no folder with masks"):
        call(monkeypatch, "export_masks", "--masks", "lost", "--format", "coco", "--out", "out")
