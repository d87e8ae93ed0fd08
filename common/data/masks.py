"""Writes label masks: palette PNGs in the colours of PASCAL VOC."""

from pathlib import Path

import numpy as np
from PIL import Image

from common.run.files import atomic_write


def voc_palette() -> np.ndarray:
    """The colours of VOC's masks, uint8 (256, 3): the bits of an index are spread over red, green and blue."""
    index, colours = np.arange(256), np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Writes label indices, uint8 (H, W), as a palette PNG, atomically."""
    image = Image.fromarray(np.ascontiguousarray(mask, dtype=np.uint8)).convert("L")
    image.putpalette(voc_palette().tobytes())
    with atomic_write(path, durable=False) as file:
        image.save(file, format="PNG")
