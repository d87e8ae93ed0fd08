"""Run lengths of a region, as COCO and SAM write them, checked before anything is made of them.

A code is ``{"size": [H, W], "counts": ...}``; the counts are the lengths of alternating runs of 0 and 1, column by
column, as a list of numbers or packed into a text (COCO's mask API: 5 bits a character, lowest first, from the fourth
on as differences to the count before the last).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

MOST_CHARACTERS = 7  # of one packed count: 35 bits hold any difference of two counts


def run_lengths(code: Any, size: tuple[int, int]) -> np.ndarray:
    """The lengths of a code's runs of 0 and 1, int64 (n,); they fill an image of ``size`` (H, W).

    Raises:
        ValueError: the code is damaged, or of another image size.
    """
    if not isinstance(code, Mapping):
        raise ValueError(f"it is {type(code).__name__}, no run lengths")
    found = code.get("size")
    if not isinstance(found, list) or found != list(size) or any(isinstance(value, bool) for value in found):
        raise ValueError(f"its run lengths are of size {found!r}, but the image is of {list(size)} (height, width)")
    counts = code.get("counts")
    lengths = _unpacked(counts) if isinstance(counts, str) else _listed(counts)
    pixels = size[0] * size[1]
    if lengths.size and (lengths.min() < 0 or lengths.max() > pixels):
        raise ValueError("its run lengths (counts) are below 0 or above the number of pixels")
    if lengths.sum() != pixels:
        raise ValueError(f"its run lengths (counts) fill {lengths.sum()} pixels of {pixels}")
    return lengths


def region_pixels(lengths: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels within the runs of 1, as places y * W + x in an image of ``size`` (H, W), int64 (n,)."""
    height, width = size
    values = np.zeros(len(lengths), dtype=bool)
    values[1::2] = True
    columns_first = np.flatnonzero(np.repeat(values, lengths))
    return columns_first % height * width + columns_first // height


def _listed(counts: Any) -> np.ndarray:
    is_list = isinstance(counts, list) and all(isinstance(n, int) and not isinstance(n, bool) for n in counts)
    if not is_list or any(abs(count) >> 40 for count in counts):
        raise ValueError("its run lengths (counts) are neither a list of whole numbers nor COCO's packed text")
    return np.array(counts, dtype=np.int64)


def _unpacked(text: str) -> np.ndarray:
    """The counts in COCO's packed text, int64 (n,)."""
    codes = np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64) - ord("0")
    if not codes.size:
        return codes
    if codes.min() < 0 or codes.max() >= 64:
        raise ValueError("its packed run lengths (counts) have characters that COCO's do not have")
    ends = np.flatnonzero(codes & 32 == 0)
    if not ends.size or ends[-1] != len(codes) - 1:
        raise ValueError("its packed run lengths (counts) are cut short")
    starts = np.concatenate([[0], ends[:-1] + 1])
    characters = ends - starts + 1
    if characters.max() > MOST_CHARACTERS:
        raise ValueError("its packed run lengths (counts) are damaged: a number is too long")
    place = np.arange(len(codes)) - np.repeat(starts, characters)
    counts = np.add.reduceat((codes & 31) << (5 * place), starts)
    counts -= np.where(codes[ends] & 16, 1 << (5 * characters), 0)  # the highest bit is the sign
    counts[1::2] = counts[1::2].cumsum()
    counts[2::2] = counts[2::2].cumsum()
    return counts
