"""Stand-ins for the types and functions that pickles of arrays name: they record their arguments, and check them.

No constructor of NumPy's or PyTorch's sees a value of the file before it is checked.
"""

import re
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from common.run.pickles.arrays import (
    ITEM,
    KINDS,
    ForeignNameError,
    PickleError,
    check_array,
    checked_array,
    plain_array,
)

OBJECT = 64  # bytes charged for a Python object


class Calling(Protocol):
    """The machine that calls a stand-in, as far as stand-ins use it."""

    def spend(self, size: int) -> None:
        """Takes bytes from the budget."""

    def parts(self, content: memoryview, count: int, names: dict[tuple[str, str], "Name"]) -> tuple[list[Any], int]:
        """The values of pickles that follow each other, and the position after them."""
        ...


Call = Callable[[Calling, tuple], Any]


class Name:
    """A name in a pickle: what runs where the file calls it, given the machine and the arguments."""

    __slots__ = ("call", "path")

    def __init__(self, path: str, call: Call | None = None) -> None:
        self.path = path
        self.call = call


class DType:
    """Stands for a type of values: a kind of `KINDS` or `ITEM`, or objects (O)."""

    __slots__ = ("_numpy", "item", "kind", "order")

    def __init__(self, kind: str, item: int) -> None:
        self.kind = kind
        self.item = item
        self.order = "="
        self._numpy: np.dtype | None = None

    def set_state(self, state: Any) -> None:
        """Takes the byte order; sizes must be the type's own; there are no fields, subarrays or metadata."""
        if not isinstance(state, tuple) or len(state) != 8 or state[0] != 3 or state[2:5] != (None, None, None):
            raise PickleError("a type of values has fields, subarrays or metadata")
        order, item, alignment, flags = state[1], *state[5:]
        allowed = (0, 8) if self.kind in ITEM else (63,) if self.kind == "O" else (0,)
        sizes = (self.item, 1, 4) if self.kind in ITEM else (-1,)
        if (
            order not in ("<", ">", "|", "=")
            or type(flags) is not int
            or flags not in allowed
            or item != (self.item if self.kind in ITEM else -1)
            or alignment not in sizes
        ):
            raise PickleError(f"a type of values of kind {self.kind!r} has sizes or flags that are not its own")
        self.order = order
        self._numpy = None

    def numpy(self) -> np.dtype:
        """The type itself."""
        if self._numpy is None:
            count = self.item // ITEM.get(self.kind, 1)
            self._numpy = np.dtype(f"{self.order}{self.kind}{count}")
        return self._numpy


class Array:
    """Stands for an array."""

    __slots__ = ("_built", "dtype", "is_fortran", "raw", "shape")

    def __init__(self) -> None:
        self.raw: Any = None
        self._built: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        """Takes shape, type and content."""
        if not isinstance(state, tuple) or len(state) != 5 or state[0] != 1 or self.raw is not None:
            raise PickleError("the state of an array is not NumPy's")
        _, self.shape, self.dtype, self.is_fortran, self.raw = state
        if type(self.dtype) is not DType or type(self.is_fortran) not in (bool, int):
            raise PickleError("the state of an array is not NumPy's")
        is_list = isinstance(self.raw, list)
        if is_list != (self.dtype.kind == "O"):
            raise PickleError("an array of objects is made of bytes, or one of numbers of objects")
        if not is_list:
            self.raw = _raw(self.raw)
            _check_length(self.raw, check_array(self.shape, self.dtype.kind, self.dtype.item))

    def built(self) -> np.ndarray:
        """The array, of numbers or text; always the same one."""
        if self._built is None:
            self._built = checked_array(self.raw, self.shape, _plain(self.dtype), bool(self.is_fortran))
        return self._built


class Storage:
    """Stands for the numbers of tensors."""

    __slots__ = ("count", "item", "kind", "raw")

    def __init__(self, kind: str, item: int, count: int) -> None:
        self.kind = kind
        self.item = item
        self.count = count
        self.raw: Any = None


class Tensor:
    """Stands for a tensor: a view of a storage; offset and strides count values."""

    __slots__ = ("offset", "shape", "storage", "strides")

    def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.storage = storage
        self.offset = offset
        self.shape = shape
        self.strides = strides


def _raw(value: Any) -> Any:
    """The bytes that a pickle gives to an array; Python 2 gives them as text."""
    if isinstance(value, bytes | memoryview):
        return value
    if isinstance(value, str):
        return _latin1(value)
    raise PickleError(f"the content of an array is {kind_of(value)}, not bytes")


def _latin1(text: str) -> bytes:
    try:
        return text.encode("latin1")
    except UnicodeEncodeError:
        raise PickleError("bytes are given as text that holds none") from None


def _check_length(raw: Any, expected: int) -> None:
    if len(raw) != expected:
        raise PickleError(f"an array has {len(raw)} bytes, but its shape and type take {expected}")


def kind_of(value: Any) -> str:
    return f"the name {value.path}" if type(value) is Name else f"a {type(value).__name__.strip('_')}"


def _called_dtype(machine: "Calling", arguments: tuple) -> DType:
    return stand_in_dtype(arguments)


def stand_in_dtype(arguments: tuple) -> DType:
    """What stands for a type of values, by the arguments of NumPy's.

    Raises:
        PickleError: it is none of numbers, text or objects.
    """
    if len(arguments) != 3 or type(arguments[0]) is not str:
        raise PickleError("a type of values is not given as NumPy gives it")
    found = re.fullmatch(r"([biufcSUO])(\d{1,9})", arguments[0])
    kind, number = (found[1], int(found[2])) if found else ("", 0)
    if kind == "O" and number in (4, 8):
        return DType(kind, number)
    if number in KINDS.get(kind, ()) or (kind in ITEM and number > 0):
        return DType(kind, number * ITEM.get(kind, 1))
    raise PickleError(f"it describes values of type {arguments[0][:20]!r}, which are neither numbers nor text")


def _called_named_dtype(kind: str, item: int) -> Callable[["Calling", tuple], DType]:
    def call(machine: "Calling", arguments: tuple) -> DType:
        if arguments:
            raise PickleError("a type of values is not given as NumPy gives it")
        return DType(kind, item)

    return call


def _called_reconstruct(machine: "Calling", arguments: tuple) -> Array:
    if (
        len(arguments) != 3
        or type(arguments[0]) is not Name
        or arguments[0].path != "numpy.ndarray"
        or arguments[1] != (0,)
        or arguments[2] not in (b"b", "b")
    ):
        raise PickleError("an array is not given as NumPy gives it")
    return Array()


def _called_scalar(machine: "Calling", arguments: tuple) -> Any:
    if len(arguments) != 2 or type(arguments[0]) is not DType:
        raise PickleError("a number is not given as NumPy gives it")
    machine.spend(OBJECT)
    return stand_in_scalar(*arguments)


def stand_in_scalar(dtype: DType, raw: Any) -> Any:
    """One of NumPy's numbers.

    Raises:
        PickleError: its bytes are not those of the type.
    """
    return plain_array(_raw(raw), (), _plain(dtype), False)[()]


def checked_state(state: tuple) -> Array:
    """What stands for an array, by its state.

    Raises:
        PickleError: it is not NumPy's.
    """
    array = Array()
    array.set_state(state)
    return array


def _called_frombuffer(machine: "Calling", arguments: tuple) -> Array:
    if len(arguments) != 4 or arguments[3] not in ("C", "F"):
        raise PickleError("an array is not given as NumPy gives it")
    raw, dtype, shape, order = arguments
    array = Array()
    array.set_state((1, shape, dtype, order == "F", raw))
    return array


def _called_encode(machine: "Calling", arguments: tuple) -> bytes:
    if len(arguments) != 2 or type(arguments[0]) is not str or arguments[1] not in ("latin1", "latin-1"):
        raise PickleError("bytes are given as text of an encoding other than latin1")
    machine.spend(len(arguments[0]) + OBJECT)
    return _latin1(arguments[0])


def _called_bytes(machine: "Calling", arguments: tuple) -> bytes:
    if arguments:
        raise PickleError("bytes are not given as pickles give them")
    return b""


def _called_ordered(machine: "Calling", arguments: tuple) -> OrderedDict:
    if arguments:
        raise PickleError("an OrderedDict is not given as pickles give it")
    machine.spend(4 * OBJECT)
    return OrderedDict()


def _called_storage(machine: "Calling", arguments: tuple) -> Storage:
    """A storage, from the file in PyTorch's old format that is its pickle.

    That file is five pickles (a mark, a version, sizes of C's types, the storage as a persistent id, the ids of all
    storages), then the number of values and the values.
    """
    if len(arguments) != 1 or not isinstance(arguments[0], bytes | memoryview):
        raise PickleError("a tensor's numbers are not given as PyTorch gives them")
    raw = memoryview(arguments[0])
    machine.spend(len(raw))
    if raw[:2] == b"PK":
        raise ForeignNameError("it has a whole file of PyTorch's where a tensor's numbers belong")
    (mark, _, system, storage, keys), at = machine.parts(raw, 5, STORAGES)
    if mark != 0x1950A86A20F9469CFC6C or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise PickleError("a tensor's numbers are not given as PyTorch gives them")
    if type(storage) is not Storage or not isinstance(keys, list) or len(keys) != 1 or len(raw) < at + 8:
        raise PickleError("a tensor's numbers are not given as PyTorch gives them")
    count = struct.unpack("<q", raw[at : at + 8])[0]
    storage.raw = raw[at + 8 :]
    if count != storage.count or len(storage.raw) != count * storage.item:
        raise PickleError(f"a tensor's {storage.count} values do not take the {len(storage.raw)} bytes that are there")
    return storage


def _called_tensor(machine: "Calling", arguments: tuple) -> Tensor:
    if len(arguments) not in (6, 7) or type(arguments[0]) is not Storage or arguments[0].raw is None:
        raise PickleError("a tensor is not given as PyTorch gives it")
    storage, offset, shape, strides = arguments[:4]
    size = check_array(shape, storage.kind, storage.item)
    check_array(strides, storage.kind, storage.item)
    if type(offset) is not int or offset < 0 or len(shape) != len(strides):
        raise PickleError("a tensor is not given as PyTorch gives it")
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if size and last >= storage.count:
        raise PickleError(f"a tensor shows value {last} of {storage.count}")
    machine.spend(size)
    return Tensor(storage, offset, shape, strides)


def _plain(dtype: DType) -> np.dtype:
    if dtype.kind == "O":
        raise PickleError("a number or an array of objects is made of bytes")
    return dtype.numpy()


NDARRAY = Name("numpy.ndarray")
RECONSTRUCT = Name("numpy._core.multiarray._reconstruct", _called_reconstruct)  # of either NumPy


def _names() -> dict[tuple[str, str], Name]:
    calls: dict[tuple[str, str], Call] = {
        ("numpy", "dtype"): _called_dtype,
        ("_codecs", "encode"): _called_encode,
        ("builtins", "bytes"): _called_bytes,
        ("__builtin__", "bytes"): _called_bytes,
        ("collections", "OrderedDict"): _called_ordered,
        ("torch._utils", "_rebuild_tensor_v2"): _called_tensor,
        ("torch.storage", "_load_from_bytes"): _called_storage,
    }
    for core in ("numpy.core", "numpy._core"):
        calls[f"{core}.multiarray", "scalar"] = _called_scalar
        calls[f"{core}.numeric", "_frombuffer"] = _called_frombuffer
    words = {"b": "Bool", "i": "Int", "u": "UInt", "f": "Float", "c": "Complex"}
    for kind, sizes in KINDS.items():
        for size in sizes:
            name = f"{words[kind]}{'' if kind == 'b' else 8 * size}DType"
            calls["numpy.dtypes", name] = _called_named_dtype(kind, size)
    found = {name: Name(".".join(name), call) for name, call in calls.items()}
    found["numpy", "ndarray"] = NDARRAY
    for core in ("numpy.core", "numpy._core"):
        found[f"{core}.multiarray", "_reconstruct"] = RECONSTRUCT
    return found


NAMES = _names()
STORED = {
    "Bool": ("b", 1), "Byte": ("u", 1), "Char": ("i", 1), "Short": ("i", 2), "Int": ("i", 4), "Long": ("i", 8),
    "Half": ("f", 2), "Float": ("f", 4), "Double": ("f", 8), "ComplexFloat": ("c", 8), "ComplexDouble": ("c", 16),
}  # fmt: skip
STORAGES = {("torch", f"{word}Storage"): Name(word) for word in STORED}


def tensor_storage(value: Any) -> Storage:
    """What stands for a storage, by its description within a tensor's numbers.

    Raises:
        PickleError: it is not PyTorch's.
    """
    if type(value) is not tuple or len(value) != 6:
        raise PickleError("it refers to something outside of itself")
    word, kind, _, _, count, part = value
    if word != "storage" or type(kind) is not Name or type(count) is not int or count < 0 or part is not None:
        raise PickleError("a tensor's numbers are not given as PyTorch gives them")
    return Storage(*STORED[kind.path], count)
