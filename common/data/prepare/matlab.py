"""Reading numeric fields of MATLAB 5 files, as SBD's masks need, without SciPy."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common.run.errors import UserError, first_line
from common.run.text import MEBIBYTE, read_bytes

# Data types of elements and classes of arrays, "MAT-File Level 5 File Format", tables 1-1 and 1-3.
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
LIMIT = 64 * MEBIBYTE  # of a file and of its elements; SBD's masks have below 1 MiB
_MATRIX = 14
_COMPRESSED = 15
_STRUCT = 2
_FIRST_NUMERIC = 6


def read_struct_field(path: Path, variable: str, field: str) -> np.ndarray:
    """A numeric field of a 1x1 struct, such as SBD's ``GTcls.Segmentation``.

    Returns:
        The matrix in its stored number type.

    Raises:
        UserError: the file, variable or field does not exist, or the file is damaged.
    """
    try:
        content = read_bytes(path, "the MATLAB file", LIMIT)
        order = "<" if content[126:128] == b"IM" else ">"
        for kind, data in _elements(content[128:], order):
            if kind == _COMPRESSED:
                kind, data = next(_elements(_inflated(data), order))
            found = _struct_field(data, order, variable, field) if kind == _MATRIX else None
            if found is not None:
                return found
    except UserError:
        raise
    except Exception as error:  # struct, zlib, index, key and iteration errors of a damaged or foreign file
        raise UserError(
            f"{path} is no MATLAB 5 file, or damaged ({type(error).__name__}: {first_line(error)}). Get it again"
        ) from error
    raise UserError(f"{path} has no numeric {variable}.{field}. Is it another file?")


def _inflated(data: bytes) -> bytes:
    """The content of a compressed element.

    Raises:
        ValueError: it is longer than any mask, as a bomb is.
    """
    stream = zlib.decompressobj()
    content = stream.decompress(data, LIMIT)
    if stream.unconsumed_tail:
        raise ValueError(f"an element has more than {LIMIT} bytes")
    return content


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, content) of consecutive data elements; contents are padded to 8 bytes, except compressed ones."""
    at = 0
    while at + 8 <= len(data):
        word, size = struct.unpack_from(order + "II", data, at)
        if word >> 16:  # small element: size and type share a word, the content is in the other
            yield word & 0xFFFF, data[at + 4 : at + 4 + (word >> 16)]
            at += 8
            continue
        if at + 8 + size > len(data):
            raise ValueError("an element is longer than the file")
        yield word, data[at + 8 : at + 8 + size]
        at += 8 + (size if word == _COMPRESSED else -(-size // 8) * 8)


def _struct_field(matrix: bytes, order: str, variable: str, field: str) -> np.ndarray | None:
    parts = _elements(matrix, order)
    flags, _, name = (next(parts)[1] for _ in range(3))  # array flags, dimensions, name
    if flags[0 if order == "<" else 3] != _STRUCT or name.decode() != variable:
        return None
    width = int(np.frombuffer(next(parts)[1], order + "i4")[0])
    names = next(parts)[1]
    fields = [names[i : i + width].split(b"\0")[0].decode() for i in range(0, len(names), width)]
    for field_name, (_, content) in zip(fields, parts, strict=False):
        if field_name == field:
            return _numeric(content, order)
    return None


def _numeric(matrix: bytes, order: str) -> np.ndarray | None:
    parts = _elements(matrix, order)
    flags = next(parts)[1]
    shape = np.frombuffer(next(parts)[1], order + "i4")
    if flags[0 if order == "<" else 3] < _FIRST_NUMERIC:
        return None
    next(parts)  # name, empty inside a struct
    kind, numbers = next(parts)  # MATLAB may store doubles as small integers
    return np.frombuffer(numbers, order + _NUMBERS[kind]).reshape(tuple(shape), order="F")
