"""Converts masks of other forms into palette PNGs of label indices: colours, 16 bits, alpha channels, arrays."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from common.data.classes import COCO_IDS
from common.data.images import FORMATS, opened
from common.data.masks import LABEL_OF, write_mask
from common.run.errors import UserError, preview
from common.run.files import load_npy
from common.run.progress import map_in_processes

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".webp", ".npy")
NAMED_MAPS = {"coco": {number: index + 1 for index, number in enumerate(COCO_IDS)}}


def parse_map(text: str) -> dict[int, int]:
    """The labels that replace others: ``255=1``, several with commas, or ``coco`` for the official category ids.

    Raises:
        UserError: it is of another form, or labels are not within 0 to 255.
    """
    if text in NAMED_MAPS:
        return NAMED_MAPS[text]
    try:
        pairs = [part.split("=") for part in text.split(",") if part]
        found = {int(old): int(new) for old, new in pairs}
        if any(not 0 <= new <= 255 for new in found.values()):
            raise ValueError
    except ValueError:
        raise UserError(
            f"--map {text}: write OLD=NEW with commas between, such as 255=1, of labels from 0 to 255; or coco"
        ) from None
    return found


def convert_masks(source: Path, target: Path, mapping: Mapping[int, int], by_colour: bool, workers: int) -> str:
    """Writes ``target/<name>.png`` for every mask in a folder; existing ones are kept.

    Args:
        mapping: new labels by old ones; labels that it does not name stay.
        by_colour: whether palette images are read by their colours, not by their indices.

    Returns:
        A summary.

    Raises:
        UserError: a mask is of no known form, or has labels beyond 255; nothing of it is written.
    """
    if not source.is_dir():
        raise UserError(f"no folder of masks {source} (--source, from {Path.cwd()})")
    if target.resolve() == source.resolve():
        raise UserError(f"--target {target} is --source itself: name another folder, as the masks there are kept")
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"{source} holds no masks ({', '.join(SUFFIXES)}); JPEG cannot be used, as it changes labels")
    todo = [path for path in files if not (target / f"{path.stem}.png").is_file()]
    job = partial(_convert, target, mapping, by_colour)
    seen: set[int] = set()
    for labels in map_in_processes(job, todo, workers, "masks"):
        seen |= labels
    kept = len(files) - len(todo)
    return f"{target}: {len(todo)} masks written, {kept} were there; labels {preview(sorted(seen), 30)}"


def _convert(target: Path, mapping: Mapping[int, int], by_colour: bool, path: Path) -> set[int]:
    labels = _mapped(read_any_mask(path, by_colour), mapping, path)
    write_mask(target / f"{path.stem}.png", labels)
    return set(np.unique(labels).tolist())


def _mapped(labels: np.ndarray, mapping: Mapping[int, int], path: Path) -> np.ndarray:
    old = np.unique(labels)
    new = np.array([mapping.get(label, label) for label in old.tolist()])
    if len(new) and (new.min() < 0 or new.max() > 255):
        wrong = [label for label in new.tolist() if not 0 <= label <= 255]
        raise UserError(f"the mask {path} has labels beyond 0 to 255 ({preview(wrong)}): name their places with --map")
    return new[np.searchsorted(old, labels)].astype(np.uint8)


def read_any_mask(path: Path, by_colour: bool = False) -> np.ndarray:
    """Labels (H, W) of a mask in any lossless form: indices, 16 or 32 bits, an array, or VOC's colours.

    Raises:
        UserError: it is damaged, a JPEG, or its colours are not VOC's.
    """
    if path.suffix.lower() == ".npy":
        content = load_npy(path)
        if not isinstance(content, np.ndarray) or content.ndim != 2 or content.dtype.kind not in "iub":
            raise UserError(f"{path} holds no array of labels (H, W)")
        return content
    with opened(path, "mask", FORMATS) as image:
        if image.format == "JPEG":
            raise UserError(f"the mask {path} is a JPEG, whose compression has changed labels: export it again as PNG")
        if image.mode == "P" and by_colour:
            return _of_colours(np.array(image.convert("RGB")), path)
        if image.mode in ("LA", "PA", "La"):
            return np.array(image)[..., 0]
        if image.mode in ("RGB", "RGBA", "RGBa", "RGBX"):
            return _of_colours(np.array(image)[..., :3], path)
        values = np.array(image)
        if values.ndim != 2 or values.dtype.kind not in "iub":
            raise UserError(f"the mask {path} is of mode {image.mode}, which holds no labels")
        return values


def _of_colours(pixels: np.ndarray, path: Path) -> np.ndarray:
    """Labels of colours (H, W, 3): VOC's, or grey values where all three channels are equal."""
    codes = pixels.astype(np.int64) @ np.array([65536, 256, 1])
    used, places = np.unique(codes, return_inverse=True)
    colours = [(code >> 16, code >> 8 & 255, code & 255) for code in used.tolist()]
    label_of: Callable[[tuple[int, int, int]], int | None] = LABEL_OF.get
    if all(red == green == blue for red, green, blue in colours):
        label_of = _grey
    labels = [label_of(colour) for colour in colours]
    unknown = [colour for colour, label in zip(colours, labels, strict=True) if label is None]
    if unknown:
        raise UserError(
            f"the mask {path} has colours that VOC's palette lacks: {preview(unknown, 3)} (red, green, blue). Replace "
            "them first; were the masks resized with interpolation, or saved as JPEG?"
        )
    return np.array(labels)[places].reshape(codes.shape)


def _grey(colour: tuple[int, int, int]) -> int:
    return colour[0]
