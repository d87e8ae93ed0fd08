"""Reads pickles of arrays without unpickling.

The pickles are those of NumPy (1 and 2, also from Python 2) and of tensors within them. Names in a pickle select
stand-ins that only record their arguments (`stand_ins`): the constructors of NumPy and PyTorch trust their own pickles
and can be led to read foreign memory. After the last opcode (`machine`) each array is built from its bytes, whose
number must be that of its shape and type.

Memory and time are bounded: by the machine, by a depth of nesting, and by the size that shared parts have when each
mention of them counts.
"""

import math
from typing import Any

import numpy as np

from common.run.pickles.arrays import PickleError, check_array
from common.run.pickles.machine import Machine
from common.run.pickles.stand_ins import OBJECT, Array, Tensor, kind_of

DEEPEST = 16  # containers in containers
SHARED = 16  # times that the parts of a file may be mentioned, on average
LEAST_SHARED = 2**26


def loads(content: bytes) -> Any:
    """The arrays, scalars and plain containers in a pickle.

    Tensors become arrays. Keys of dictionaries are integers or text.

    Raises:
        PickleError: it holds anything else, is damaged, or would take memory or time out of proportion.
    """
    return _Builder(len(content)).built(Machine(memoryview(content)).load())


class _Builder:
    """Puts arrays in the place of their stand-ins, and counts all values as if nothing was shared."""

    def __init__(self, size: int) -> None:
        """Begins with nothing.

        Args:
            size: bytes of the pickle.
        """
        self.most = SHARED * size + LEAST_SHARED
        self.done: dict[int, tuple[Any, int]] = {}  # by the identity of a part: its value, and its size in bytes
        self.open: set[int] = set()
        self.parts: list[Any] = []  # keeps identities unique

    def built(self, root: Any) -> Any:
        """The value.

        Raises:
            PickleError: it contains itself, is nested too deeply or too large once shared parts are counted.
        """
        value, size = self._value(root, 0)
        if size > self.most:
            raise PickleError(f"its parts are shared such that they amount to {size} bytes")
        return value

    def _value(self, part: Any, depth: int) -> tuple[Any, int]:
        if type(part) in (int, float, bool, type(None), str, bytes) or isinstance(part, np.generic):
            return part, OBJECT + (len(part) if isinstance(part, str | bytes) else 0)
        if type(part) is Array and part.raw is not None and part.dtype.kind != "O":
            array = part.built()
            return array, array.nbytes + OBJECT
        known = self.done.get(id(part))
        if known is not None:
            return known
        if id(part) in self.open:
            raise PickleError("it contains itself")
        if depth > DEEPEST:
            raise PickleError(f"it is nested more than {DEEPEST} levels deep")
        self.open.add(id(part))
        self.parts.append(part)
        result = self._made(part, depth + 1)
        self.open.discard(id(part))
        self.done[id(part)] = result
        return result

    def _made(self, part: Any, depth: int) -> tuple[Any, int]:
        if isinstance(part, list | tuple):
            pairs = [self._value(item, depth) for item in part]
            values: Any = [value for value, _ in pairs]
            if isinstance(part, list):
                part[:] = values
                values = part
            else:
                values = tuple(values)
            return values, OBJECT + sum(size for _, size in pairs)
        if isinstance(part, dict):
            total = OBJECT
            for key, item in part.items():
                part[key], size = self._value(item, depth)
                total += size + OBJECT
            return part, total
        if isinstance(part, memoryview):
            return bytes(part), len(part)
        if type(part) is Array and part.raw is not None:
            return self._objects(part, depth)
        if type(part) is Tensor:
            storage = part.storage
            dtype = np.dtype(f"<{storage.kind}{storage.item}")
            strides = [stride * storage.item for stride in part.strides]
            array = np.ndarray(part.shape, dtype, storage.raw, part.offset * storage.item, strides).copy()
            return array, array.nbytes + OBJECT
        raise PickleError(f"it holds {kind_of(part)}, which is no array")

    def _objects(self, part: Array, depth: int) -> tuple[Any, int]:
        check_array(part.shape, "S", 1)
        count = math.prod(part.shape)
        if count != len(part.raw):
            raise PickleError(f"an array of shape {part.shape} has {len(part.raw)} objects")
        pairs = [self._value(item, depth) for item in part.raw]
        objects = np.empty(count, dtype=object)
        for index, (value, _) in enumerate(pairs):
            objects[index] = value
        shaped = objects.reshape(part.shape, order="F" if part.is_fortran else "C")
        return shaped, OBJECT + sum(size for _, size in pairs)
