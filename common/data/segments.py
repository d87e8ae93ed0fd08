"""Segments of images: regions without classes, from a clustering of colours or a segmentation network.

A folder has one file per image, in any of these formats:

* ``<id>.npz`` - label map ``labels``, whole numbers (H, W): 0 is no segment, every other number one segment.
* ``<id>.png`` - the same, as a grey or palette PNG of 8 or 16 bits.
* ``<id>.json`` - regions that may overlap, as run lengths (`common.data.rle`): a list of
  ``{"segmentation": {"size", "counts"}, "predicted_iou": ...}`` as SAM's mask generator gives it, or such a list under
  ``annotations`` as in SA-1B.

A single JSON holds the regions of a whole data set: COCO's results, a list whose entries have an ``image_id`` and may
have a ``score``, or COCO's instances, with run lengths. Classes in it are not read.

Where regions overlap, the one of the higher score lies in front, of equal ones the smaller, of equally large ones the
later in the file.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.data.lists import canonical_id
from common.data.rle import region_pixels, run_lengths
from common.run.errors import UserError, first_line, preview
from common.run.files import atomic_write, load_npz, write_json
from common.run.text import MEBIBYTE, read_json

FORMATS = ("npz", "png", "json")
JSON_LIMIT = 4096 * MEBIBYTE  # of the regions of a whole data set
SCORES = ("predicted_iou", "score")  # of SAM, of COCO's results
MOST_PIXELS = 1 << 27  # of all regions of an image together: half a gigabyte of places
PNG_MODES = ("L", "P", "I;16", "I")

Entry = Mapping[str, Any]  # of a region: its run lengths, and perhaps its score


@dataclass(frozen=True)
class Segments:
    """An image's segments from back to front.

    Attributes:
        size: the image's (H, W).
        pixels: the pixels of one segment after the other, as places y * W + x, int64 (M,).
        counts: the number of pixels of each, above 0, int64 (n,).
    """

    size: tuple[int, int]
    pixels: np.ndarray
    counts: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """The place in ``pixels`` at which each segment begins, int64 (n,)."""
        return self.counts.cumsum() - self.counts

    def owners(self) -> np.ndarray:
        """The number of the segment in front at each pixel, from 0, int32 (H, W); -1 where there is none."""
        owners = np.full(self.size[0] * self.size[1], -1, dtype=np.int32)
        owners[self.pixels] = np.repeat(np.arange(len(self.counts), dtype=np.int32), self.counts)  # the last one stays
        return owners.reshape(self.size)


def segments_of_labels(labels: np.ndarray) -> Segments:
    """The segments of a label map, whole numbers (H, W), 0: none; in the order of their numbers."""
    flat = labels.ravel()
    if flat.size:
        flat = flat.astype(np.min_scalar_type(int(flat.max())))  # 16 bits are sorted by radix
    order = np.argsort(flat, kind="stable")
    inside = order[flat.size - np.count_nonzero(flat) :]
    numbers = flat[inside]
    is_first = np.ones(len(numbers), dtype=bool)
    is_first[1:] = numbers[1:] != numbers[:-1]
    counts = np.diff(np.flatnonzero(is_first), append=len(numbers))
    return Segments(labels.shape, inside, counts)


def segments_of_entries(entries: Sequence[Any], size: tuple[int, int]) -> Segments:
    """The segments that a list of regions describes, those without a pixel left out.

    Raises:
        ValueError: a region is damaged, or of another image size.
    """
    regions = []
    total = 0
    for number, entry in enumerate(entries):
        try:
            score = _score(entry)
            lengths = run_lengths(entry.get("segmentation"), size)
        except ValueError as error:
            raise ValueError(f"region {number}: {error}") from error
        count = int(lengths[1::2].sum())
        total += count
        if total > MOST_PIXELS:
            raise ValueError(f"its regions have more than {MOST_PIXELS} pixels together")
        if count:
            regions.append(((score, -count, number), region_pixels(lengths, size)))
    regions.sort(key=lambda region: region[0])
    pixels = [places for _, places in regions]
    counts = np.array([len(places) for places in pixels], dtype=np.int64)
    return Segments(size, np.concatenate([np.zeros(0, dtype=np.int64), *pixels]), counts)


def _score(entry: Any) -> float:
    if not isinstance(entry, Mapping):
        raise ValueError(f"it is {type(entry).__name__}, no names and values")
    score = next((entry[name] for name in SCORES if entry.get(name) is not None), 0.0)
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise ValueError(f"its score is {score!r}, no number")
    return float(score)


class SegmentFiles:
    """The segments of a data set: a folder with a file for each image, or one JSON for all."""

    def __init__(self, path: Path, dataset: str) -> None:
        """Opens it; a JSON is read at once.

        Args:
            dataset: as `common.data.lists.canonical_id`, for the images that a JSON names.

        Raises:
            UserError: there is no such folder or file, or the JSON is no list of regions.
        """
        self.path = path
        self._entries: dict[str, list[Entry]] | None = None
        if path.is_file():
            self._entries = _entries_by_image(path, read_json(path, "the segments", JSON_LIMIT), dataset)
        elif not path.is_dir():
            raise UserError(
                f"no folder of segments {path} (from {Path.cwd()}); python scripts/make_segments.py writes one"
            )

    def find(self, image_id: str) -> "Path | list[Entry] | None":
        """The file of an image, or its regions in the common JSON; None: it has neither. For `read_segments`."""
        if self._entries is not None:
            return self._entries.get(image_id)
        paths = (self.path / f"{image_id}.{suffix}" for suffix in FORMATS)
        return next((path for path in paths if path.is_file()), None)

    def require(self, ids: Iterable[str], list_name: str) -> None:
        """Makes sure that every image has segments; an empty list of regions counts as some.

        Raises:
            UserError: some have none; they are named.
        """
        unique = list(dict.fromkeys(ids))
        missing = [image_id for image_id in unique if self.find(image_id) is None]
        if missing:
            raise UserError(
                f"{len(missing)} of the {len(unique)} images of list {list_name!r} have no segments in {self.path}: "
                f"{preview(missing, 3)}. Make them with: python scripts/make_segments.py"
            )


def read_segments(source: Path | Sequence[Entry], size: tuple[int, int], name: str = "the regions") -> Segments:
    """An image's segments, from its file or from a list of regions.

    Args:
        size: the image's (H, W).
        name: of a list of regions, for messages.

    Raises:
        UserError: the file is missing, damaged, of no known format, or of another size.
    """
    try:
        if not isinstance(source, Path):
            return segments_of_entries(source, size)
        if source.suffix == ".json":
            return segments_of_entries(_entries(read_json(source, "the segments", JSON_LIMIT)), size)
        return segments_of_labels(_read_labels(source, size))
    except ValueError as error:
        raise UserError(
            f"{source if isinstance(source, Path) else name} cannot be used as segments: {error}"
        ) from error


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Writes a label map (H, W), 0: no segment, as ``.npz``, atomically."""
    with atomic_write(path, durable=False) as file:
        np.savez_compressed(file, labels=labels.astype(np.min_scalar_type(int(labels.max(initial=0)))))


def write_entries(path: Path, masks: Sequence[np.ndarray], scores: Sequence[float]) -> None:
    """Writes regions that may overlap, bool (H, W) each, with their scores as ``.json``, atomically."""
    from pycocotools import mask as rle_tools

    entries = []
    for mask, score in zip(masks, scores, strict=True):
        code = rle_tools.encode(np.asfortranarray(mask, dtype=np.uint8))
        size = [int(side) for side in code["size"]]
        entries.append({
            "segmentation": {"size": size, "counts": code["counts"].decode()}, "predicted_iou": float(score),
            "area": int(mask.sum()),
        })  # fmt: skip
    write_json(path, entries)


def _read_labels(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The label map in a file, whole numbers (H, W), none below 0.

    Raises:
        ValueError: it is damaged, or of another size.
    """
    labels = _read_png(path, size) if path.suffix == ".png" else read_npz_map(path, "labels", size)
    if labels.dtype.kind not in "ui":
        raise ValueError(f"its labels are {labels.dtype}; whole numbers are needed")
    if labels.size and labels.min() < 0:
        raise ValueError(f"it has the number {labels.min()}; 0 is no segment, numbers above 0 are segments")
    return labels


def _read_png(path: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode not in PNG_MODES:
                raise ValueError(f"it is of mode {image.mode}; a label map has one number a pixel (grey or palette)")
            _require_size((image.height, image.width), size)
            return np.array(image)
    except ValueError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen types for damaged files
        raise ValueError(f"it is damaged or no image ({type(error).__name__}: {first_line(error)})") from error


def read_npz_map(path: Path, name: str, size: tuple[int, ...]) -> np.ndarray:
    """A map of numbers in a ``.npz`` file, which must be of an image's ``size`` (H, W).

    Raises:
        ValueError: it is damaged, of another size, or lacks the map.
        UserError: no such file.
    """
    try:
        (values,) = load_npz(path, (name,))
    except UserError:
        raise
    except Exception as error:  # zip, format and key errors of a damaged or foreign file
        raise ValueError(f"it is damaged or no such file ({type(error).__name__}: {first_line(error)})") from error
    _require_size(values.shape, size)
    return values


def _require_size(found: tuple[int, ...], size: tuple[int, ...]) -> None:
    if found != tuple(size):
        raise ValueError(f"it is of {found} pixels, but the image is of {tuple(size)} (height, width)")


def _entries(content: Any) -> list[Any]:
    """The list of regions in a JSON: its top, or what stands under ``annotations``."""
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise ValueError("it holds no list of regions, neither at its top nor under 'annotations'")
    return entries


def _entries_by_image(path: Path, content: Any, dataset: str) -> dict[str, list[Entry]]:
    try:
        images = content.get("images", []) if isinstance(content, dict) else []
        found: dict[str, list[Entry]] = {canonical_id(image["id"], dataset): [] for image in images}
        for entry in _entries(content):
            found.setdefault(canonical_id(entry["image_id"], dataset), []).append(entry)
        return found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} holds no regions with an image_id each, as COCO's results and instances do "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error
