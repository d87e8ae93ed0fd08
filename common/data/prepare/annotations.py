"""Masks as files of annotation tools: COCO, LabelMe, YOLO segmentation, CVAT.

A mask holds label indices, uint8 (H, W): 0 background, c the class c - 1, 255 ignored; background and ignored pixels
are not exported. COCO and CVAT store runs of pixels and are exact. LabelMe and YOLO know closed polygons alone: a
polygon goes through the centres of an object's border pixels, as their own rasterisers fill it, and a cut leads to each
hole.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
import yaml
from pycocotools import mask as coco_mask

from common.data.classes import IGNORE_LABEL
from common.run.files import atomic_write, write_json

FORMATS = ("coco", "labelme", "yolo", "cvat")


class Annotated(NamedTuple):
    """An image's file name, its id, and its mask."""

    image_id: str
    file_name: str
    mask: np.ndarray


class AnnotationWriter:
    """Collects the annotations of images, and writes those of all images at the end."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        """Writes into ``folder``.

        Args:
            classes: foreground names in label order.
        """
        self.folder = folder
        self.classes = list(classes)

    def add(self, image: Annotated) -> None:
        """Takes an image; formats with a file for each image write it here."""
        raise NotImplementedError

    def close(self) -> Path:
        """Writes the rest; the file or folder to name."""
        raise NotImplementedError


class CocoWriter(AnnotationWriter):
    """``annotations.json``: one annotation for each class of an image, as compressed runs."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        super().__init__(folder, classes)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, image: Annotated) -> None:
        height, width = image.mask.shape
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": image.file_name, "height": height, "width": width})
        for label, pixels in parts(image.mask):
            runs = coco_mask.encode(np.asfortranarray(pixels, dtype=np.uint8))
            self._annotations.append({
                "id": len(self._annotations) + 1, "image_id": number, "category_id": label, "iscrowd": 0,
                "segmentation": {"size": [height, width], "counts": runs["counts"].decode("ascii")},
                "area": int(coco_mask.area(runs)), "bbox": coco_mask.toBbox(runs).tolist(),
            })  # fmt: skip

    def close(self) -> Path:
        categories = [{"id": label, "name": name} for label, name in enumerate(self.classes, 1)]
        path = self.folder / "annotations.json"
        content = {"images": self._images, "annotations": self._annotations, "categories": categories}
        write_json(path, content)
        return path


class LabelMeWriter(AnnotationWriter):
    """``<id>.json`` for each image, with one polygon for each connected part; an object's parts share a group."""

    def add(self, image: Annotated) -> None:
        height, width = image.mask.shape
        shapes = []
        for label, pixels in parts(image.mask):
            for points in polygons(pixels):
                shapes.append({
                    "label": self.classes[label - 1], "points": points.tolist(), "group_id": label,
                    "shape_type": "polygon", "flags": {}, "description": "",
                })  # fmt: skip
        content = {
            "version": "5.0.0", "flags": {}, "shapes": shapes, "imagePath": image.file_name, "imageData": None,
            "imageHeight": height, "imageWidth": width,
        }  # fmt: skip
        write_json(self.folder / f"{image.image_id}.json", content)

    def close(self) -> Path:
        return self.folder


class YoloWriter(AnnotationWriter):
    """``labels/<id>.txt``: class index from 0, then x and y of a polygon's points as shares of width and height."""

    def add(self, image: Annotated) -> None:
        size = image.mask.shape[::-1]
        lines = [
            " ".join([str(label - 1), *(f"{value:.6f}" for value in (points / size).flatten())])
            for label, pixels in parts(image.mask)
            for points in polygons(pixels)
        ]
        path = self.folder / "labels" / f"{image.image_id}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "w", durable=False) as file:
            file.write("".join(f"{line}\n" for line in lines))

    def close(self) -> Path:
        path = self.folder / "data.yaml"
        with atomic_write(path, "w") as file:
            yaml.safe_dump({"names": dict(enumerate(self.classes))}, file, sort_keys=False, allow_unicode=True)
        return self.folder


class CvatWriter(AnnotationWriter):
    """``annotations.xml`` of "CVAT for images 1.1", with a mask for each class of an image."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        super().__init__(folder, classes)
        self._root = ElementTree.Element("annotations")
        ElementTree.SubElement(self._root, "version").text = "1.1"
        task = ElementTree.SubElement(ElementTree.SubElement(self._root, "meta"), "task")
        labels = ElementTree.SubElement(task, "labels")
        for name in classes:
            ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
        self._count = 0

    def add(self, image: Annotated) -> None:
        height, width = image.mask.shape
        entry = {"id": str(self._count), "name": image.file_name, "width": str(width), "height": str(height)}
        element = ElementTree.SubElement(self._root, "image", entry)
        self._count += 1
        for label, pixels in parts(image.mask):
            left, top, box_width, box_height = cv2.boundingRect(pixels)
            inside = pixels[top : top + box_height, left : left + box_width]
            place = {"left": left, "top": top, "width": box_width, "height": box_height, "z_order": 0, "occluded": 0}
            attributes = {name: str(value) for name, value in place.items()}
            runs = ", ".join(map(str, row_runs(inside)))
            ElementTree.SubElement(
                element, "mask", {"label": self.classes[label - 1], "source": "auto", "rle": runs, **attributes}
            )

    def close(self) -> Path:
        path = self.folder / "annotations.xml"
        with atomic_write(path) as file:
            ElementTree.ElementTree(self._root).write(file, encoding="utf-8", xml_declaration=True)
        return path


WRITERS: dict[str, type[AnnotationWriter]] = {
    "coco": CocoWriter, "labelme": LabelMeWriter, "yolo": YoloWriter, "cvat": CvatWriter,
}  # fmt: skip


def open_writers(formats: Sequence[str], folder: Path, classes: Sequence[str]) -> list[AnnotationWriter]:
    """Writers of formats, each with a folder of its own below ``folder``, which is made."""
    writers = [WRITERS[name](folder / name, classes) for name in dict.fromkeys(formats)]
    for writer in writers:
        writer.folder.mkdir(parents=True, exist_ok=True)
    return writers


def parts(mask: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The labels of a mask, background and ignored pixels aside, with their pixels, uint8 (H, W) of 0 and 1."""
    for label in np.unique(mask).tolist():
        if label not in (0, IGNORE_LABEL):
            yield label, (mask == label).astype(np.uint8)


def polygons(pixels: np.ndarray) -> list[np.ndarray]:
    """Closed polygons around the connected parts of a region.

    Args:
        pixels: uint8 (H, W) of 0 and 1.

    Returns:
        Points (n, 2) as x and y of pixel centres, at least three each; holes hang on their part by a cut.
    """
    contours, hierarchy = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outlines: dict[int, np.ndarray] = {}
    for index, contour in enumerate(contours):
        if hierarchy[0][index][3] < 0:
            outlines[index] = contour[:, 0]
    for index, contour in enumerate(contours):
        outer = int(hierarchy[0][index][3])
        if outer >= 0:
            outlines[outer] = _with_hole(outlines[outer], contour[:, 0])
    return [points if len(points) > 2 else np.resize(points, (3, 2)) for points in outlines.values()]


def _with_hole(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The outline, with a way to the hole and round it and back at their nearest points."""
    distances = ((outline[:, None] - hole[None]) ** 2).sum(2)
    here, there = np.unravel_index(distances.argmin(), distances.shape)
    around = np.roll(hole, -int(there), axis=0)
    return np.concatenate([outline[: here + 1], around, around[:1], outline[here:]])


def row_runs(pixels: np.ndarray) -> list[int]:
    """Lengths of the runs of 0 and 1 in turn, row by row; the first may be 0."""
    flat = np.concatenate([[0], pixels.flatten(), [2]])
    changes = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], changes])).tolist()
