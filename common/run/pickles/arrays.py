"""Arrays that files describe: checks of their type, shape and size before anything is built."""

import math
from typing import Any

import numpy as np

KINDS = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}
ITEM = {"S": 1, "U": 4}  # kinds whose number counts characters: bytes of a character
LAST_CHARACTER = 0x10FFFF
MOST_AXES = 32
MOST_EMPTY = 2**31  # product of the axes of an empty array, those of length 0 aside


class PickleError(ValueError):
    """A pickle that is damaged, or is none of plain arrays."""


class ForeignNameError(PickleError):
    """A pickle that names a function or class which is no part of arrays; to call it could run any code."""


def check_array(shape: Any, kind: str, item: int) -> int:
    """The number of bytes of an array that a file describes.

    Raises:
        PickleError: its type is none of plain numbers or text, or its shape is impossible.
    """
    if kind not in "biufcSU" or item < 1:
        raise PickleError(f"it describes an array of kind {kind!r} with {item} bytes a value: neither numbers nor text")
    if type(shape) is not tuple or len(shape) > MOST_AXES:
        raise PickleError("it describes an array whose shape is no tuple of a few integers")
    count = 1
    for side in shape:
        if type(side) is not int:
            raise PickleError("it describes an array whose shape is no tuple of a few integers")
        if side < 0:
            raise PickleError(f"it describes an array of the impossible shape {str(shape)[:60]}")
        count *= side
    if count == 0 and math.prod(max(side, 1) for side in shape) > MOST_EMPTY:
        raise PickleError(f"it describes an empty array of the impossible shape {str(shape)[:60]}")
    return count * item


def plain_array(raw: Any, shape: tuple[int, ...], dtype: np.dtype, is_fortran: bool) -> np.ndarray:
    """An array of its own from the bytes of a file.

    Raises:
        PickleError: their number is not that of the array, or they are no characters.
    """
    expected = check_array(shape, dtype.kind, dtype.itemsize)
    if len(raw) != expected:
        raise PickleError(f"an array of shape {shape} and type {dtype} takes {expected} bytes, not {len(raw)}")
    return checked_array(raw, shape, dtype, is_fortran)


def checked_array(raw: Any, shape: tuple[int, ...], dtype: np.dtype, is_fortran: bool) -> np.ndarray:
    """As `plain_array`, where the number of bytes is known to be right.

    Raises:
        PickleError: they are no characters.
    """
    array = np.ndarray(shape, dtype, raw, order="F" if is_fortran else "C").copy(order="K")
    if dtype.kind == "U" and array.size and np.frombuffer(raw, dtype.byteorder + "u4").max() > LAST_CHARACTER:
        raise PickleError("an array of text holds numbers that are no characters")
    return array
