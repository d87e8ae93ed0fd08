"""The one reader of label masks, and their writer: palette PNGs in the colours of PASCAL VOC."""

from pathlib import Path

import numpy as np
from PIL import Image

from common.data.images import FORMATS, opened
from common.run.errors import UserError
from common.run.files import atomic_write

UNSCALED = {"L;2": 85, "L;4": 17}  # Pillow multiplies grey values of 2 and 4 bits to fill 8
CONVERT = "python scripts/prepare_data.py masks --source FOLDER --target FOLDER writes them as they must be."


def voc_palette() -> np.ndarray:
    """The colours of VOC's masks, uint8 (256, 3): the bits of an index are spread over red, green and blue."""
    index, colours = np.arange(256), np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours


PALETTE_BYTES = voc_palette().tobytes()


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Writes label indices, uint8 (H, W), as a palette PNG, atomically."""
    image = Image.fromarray(np.ascontiguousarray(mask, dtype=np.uint8))
    image.putpalette(PALETTE_BYTES)
    with atomic_write(path, durable=False) as file:
        image.save(file, format="PNG")


LABEL_OF = {tuple(colour): label for label, colour in enumerate(voc_palette().tolist())}


def is_renumbered(path: Path) -> bool:
    """Whether a mask's colours are VOC's, but of other labels than its indices: a program has renumbered them.

    Raises:
        UserError: as `read_mask`.
    """
    with opened(path, "mask", FORMATS) as image:
        if image.mode != "P":
            return False
        palette = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3).tolist()
        used = [label for label in np.unique(np.array(image)).tolist() if label < len(palette)]
        meant = [LABEL_OF.get(tuple(palette[label])) for label in used]
        return None not in meant and meant != used


def read_mask(path: Path) -> np.ndarray:
    """A label mask, uint8 (H, W), from a PNG: palette indices and grey values are read as they are.

    Raises:
        UserError: missing, damaged, of another format, or an image of colours instead of label indices.
    """
    with opened(path, "mask", FORMATS) as image:
        if image.format != "PNG":
            lossy = "whose compression changes labels: export it again" if image.format == "JPEG" else "not a PNG"
            raise UserError(f"the mask {path} is a {image.format} file, {lossy}; masks are PNGs. {CONVERT}")
        if image.mode not in ("P", "L", "1"):
            raise UserError(
                f"the mask {path} is of mode {image.mode}; masks are PNGs with one label index a pixel (palette "
                f"or grey, up to 8 bits). {CONVERT}"
            )
        tiles = getattr(image, "tile", None)  # before decoding: how the file has its values
        factor = UNSCALED.get(tiles[0].args) if tiles and image.mode == "L" else None
        labels = np.array(image, dtype=np.uint8)
        return labels // factor if factor else labels
