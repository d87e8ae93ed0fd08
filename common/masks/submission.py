"""The archive that PASCAL VOC's evaluation server takes: palette PNGs in the development kit's folders, as one tar."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from common.data.classes import VOC12
from common.data.images import image_size, opened
from common.data.masks import voc_palette
from common.run.errors import UserError
from common.run.files import atomic_write

SHOWN = 20  # problems that an error message lists
PNG_SIGNATURE, BIT_DEPTH, COLOUR_TYPE = b"\x89PNG\r\n\x1a\n", 24, 25  # offsets in a PNG's first chunk
PALETTE_OF_8_BITS = (8, 3)


def submission_folder(comp: str) -> str:
    """Where the masks lie in the archive; ``comp5`` for networks trained on VOC alone, ``comp6`` for all others."""
    return f"results/VOC2012/Segmentation/{comp}_test_cls"


def write_submission(folder: Path, images: Mapping[str, Path], archive: Path, comp: str = "comp6") -> None:
    """Packs the masks of a list, after looking at every one, atomically.

    The same masks give the same bytes: no times or owners are recorded.

    Args:
        folder: has ``<id>.png`` for every image.
        images: image files by id; a mask has its image's size.

    Raises:
        UserError: the server would refuse or misread masks; they are counted, and the first ones named.
    """
    problems = {image_id: problem for image_id in images if (problem := _problem(folder, image_id, images[image_id]))}
    if problems or not images:
        lines = [f"  {image_id}: {problem}" for image_id, problem in list(problems.items())[:SHOWN]]
        if len(problems) > SHOWN:
            lines.append(f"  and {len(problems) - SHOWN} more")
        raise UserError("\n".join([f"{len(problems)} of {len(images)} masks cannot be submitted:", *lines]))
    with atomic_write(archive) as file, tarfile.open(fileobj=file, mode="w") as tar:
        for image_id in images:
            content = (folder / f"{image_id}.png").read_bytes()
            entry = tarfile.TarInfo(f"{submission_folder(comp)}/{image_id}.png")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def _problem(folder: Path, image_id: str, image_path: Path) -> str:
    """The reason against submitting an image's mask; empty if there is none."""
    path = folder / f"{image_id}.png"
    if not path.is_file():
        return f"missing: {path}"
    header = path.read_bytes()[: COLOUR_TYPE + 1]
    if not header.startswith(PNG_SIGNATURE) or tuple(header[BIT_DEPTH:]) != PALETTE_OF_8_BITS:
        return f"{path} is no PNG with a palette and 8 bits a pixel"
    try:
        with opened(path, "mask", ("PNG",)) as mask:
            labels = np.array(mask)
            colours = mask.getpalette() or []
        height, width = image_size(image_path)
    except UserError as error:
        return f"cannot be read ({error})"
    if labels.shape != (height, width):
        return f"is of {labels.shape[1]}x{labels.shape[0]} pixels, its image of {width}x{height}"
    if labels.max() > len(VOC12):
        return f"has label {labels.max()}; the server takes 0 to {len(VOC12)}"
    used = 3 * (len(VOC12) + 1)
    if colours[:used] != voc_palette().ravel()[:used].tolist():
        return "has a palette of other colours than VOC's"
    return ""
