"""Reads pickles of arrays without unpickling: a small machine runs the opcodes and can build arrays alone.

The pickles are those of NumPy (1 and 2, also from Python 2) and of tensors within them. Names in a pickle select
stand-ins that only record their arguments: no constructor of NumPy's or PyTorch's sees a value of the file before it is
checked, as these trust their own pickles and can be led to read foreign memory. After the last opcode each array is
built from its bytes, whose number must be that of its shape and type.

Memory and time are bounded: by a budget of bytes in proportion to the file, a number of opcodes, a depth of nesting,
and by the size that shared parts have when each mention of them counts.
"""

import math
import re
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

MOST_OPCODES = 10_000_000  # a label table of 400,000 images; some seconds
DEEPEST = 16  # containers in containers
LARGEST_INTEGER = 16  # bytes
LEAST_BUDGET = 2**20
BUDGET = 16  # bytes that a byte of the file may take in memory; a tuple of one value takes one byte there and 48 here
SHARED = 16  # times that the parts of a file may be mentioned, on average
LEAST_SHARED = 2**26
OBJECT = 64  # bytes charged for a Python object
VIEWED = 1024  # longer runs of bytes are not copied out of the file

KINDS = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}
ITEM = {"S": 1, "U": 4}  # kinds whose number counts characters: bytes of a character
LAST_CHARACTER = 0x10FFFF
MOST_AXES = 32
MOST_EMPTY = 2**31  # product of the axes of an empty array, those of length 0 aside


class PickleError(ValueError):
    """A pickle that is damaged, or is none of plain arrays."""


class ForeignNameError(PickleError):
    """A pickle that names a function or class which is no part of arrays; to call it could run any code."""


def loads(content: bytes) -> Any:
    """The arrays, scalars and plain containers in a pickle.

    Tensors become arrays. Keys of dictionaries are integers or text.

    Raises:
        PickleError: it holds anything else, is damaged, or would take memory or time out of proportion.
    """
    machine = _Machine(memoryview(content), _NAMES)
    return _Builder(len(content)).built(machine.load())


def check_array(shape: Any, kind: str, item: int) -> int:
    """The number of bytes of an array that a file describes.

    Raises:
        PickleError: its type is none of plain numbers or text, or its shape is impossible.
    """
    if kind not in "biufcSU" or item < 1:
        raise PickleError(f"it describes an array of kind {kind!r} with {item} bytes a value: neither numbers nor text")
    if type(shape) is not tuple or len(shape) > MOST_AXES or not all(type(side) is int for side in shape):
        raise PickleError("it describes an array whose shape is no tuple of a few integers")
    if min(shape, default=0) < 0:
        raise PickleError(f"it describes an array of the impossible shape {str(shape)[:60]}")
    count = math.prod(shape)
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
    array = np.ndarray(shape, dtype, raw, order="F" if is_fortran else "C").copy(order="K")
    if dtype.kind == "U" and array.size and np.frombuffer(raw, dtype.byteorder + "u4").max() > LAST_CHARACTER:
        raise PickleError("an array of text holds numbers that are no characters")
    return array


class _Name:
    """A name in a pickle: what runs where the file calls it, given the machine and the arguments."""

    __slots__ = ("call", "path")

    def __init__(self, path: str, call: Callable[["_Machine", tuple], Any] | None = None) -> None:
        self.path = path
        self.call = call


class _DType:
    """Stands for a type of values: a kind of `KINDS` or `ITEM`, or objects (O)."""

    __slots__ = ("item", "kind", "order")

    def __init__(self, kind: str, item: int) -> None:
        self.kind = kind
        self.item = item
        self.order = "="

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

    def numpy(self) -> np.dtype:
        """The type itself."""
        count = self.item // ITEM.get(self.kind, 1)
        return np.dtype(f"{self.order}{self.kind}{count}")


class _Array:
    """Stands for an array."""

    __slots__ = ("dtype", "is_fortran", "raw", "shape")

    def __init__(self) -> None:
        self.raw: Any = None

    def set_state(self, state: Any) -> None:
        """Takes shape, type and content."""
        if not isinstance(state, tuple) or len(state) != 5 or state[0] != 1 or self.raw is not None:
            raise PickleError("the state of an array is not NumPy's")
        _, self.shape, self.dtype, self.is_fortran, self.raw = state
        if type(self.dtype) is not _DType or type(self.is_fortran) not in (bool, int):
            raise PickleError("the state of an array is not NumPy's")
        is_list = isinstance(self.raw, list)
        if is_list != (self.dtype.kind == "O"):
            raise PickleError("an array of objects is made of bytes, or one of numbers of objects")
        if not is_list:
            self.raw = _raw(self.raw)
            _check_length(self.raw, check_array(self.shape, self.dtype.kind, self.dtype.item))

    def built(self) -> np.ndarray:
        """The array, of numbers or text."""
        return plain_array(self.raw, self.shape, _plain(self.dtype), bool(self.is_fortran))


class _Storage:
    """Stands for the numbers of tensors."""

    __slots__ = ("count", "item", "kind", "raw")

    def __init__(self, kind: str, item: int, count: int) -> None:
        self.kind = kind
        self.item = item
        self.count = count
        self.raw: Any = None


class _Tensor:
    """Stands for a tensor: a view of a storage; offset and strides count values."""

    __slots__ = ("offset", "shape", "storage", "strides")

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
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
    raise PickleError(f"the content of an array is {_kind_of(value)}, not bytes")


def _latin1(text: str) -> bytes:
    try:
        return text.encode("latin1")
    except UnicodeEncodeError:
        raise PickleError("bytes are given as text that holds none") from None


def _check_length(raw: Any, expected: int) -> None:
    if len(raw) != expected:
        raise PickleError(f"an array has {len(raw)} bytes, but its shape and type take {expected}")


def _kind_of(value: Any) -> str:
    return f"the name {value.path}" if type(value) is _Name else f"a {type(value).__name__.strip('_')}"


# --- what stands for the functions that pickles of arrays call


def _called_dtype(machine: "_Machine", arguments: tuple) -> _DType:
    return stand_in_dtype(arguments)


def stand_in_dtype(arguments: tuple) -> _DType:
    """What stands for a type of values, by the arguments of NumPy's.

    Raises:
        PickleError: it is none of numbers, text or objects.
    """
    if len(arguments) != 3 or type(arguments[0]) is not str:
        raise PickleError("a type of values is not given as NumPy gives it")
    found = re.fullmatch(r"([biufcSUO])(\d{1,9})", arguments[0])
    kind, number = (found[1], int(found[2])) if found else ("", 0)
    if kind == "O" and number in (4, 8):
        return _DType(kind, number)
    if number in KINDS.get(kind, ()) or (kind in ITEM and number > 0):
        return _DType(kind, number * ITEM.get(kind, 1))
    raise PickleError(f"it describes values of type {arguments[0][:20]!r}, which are neither numbers nor text")


def _called_named_dtype(kind: str, item: int) -> Callable[["_Machine", tuple], _DType]:
    def call(machine: "_Machine", arguments: tuple) -> _DType:
        if arguments:
            raise PickleError("a type of values is not given as NumPy gives it")
        return _DType(kind, item)

    return call


def _called_reconstruct(machine: "_Machine", arguments: tuple) -> _Array:
    if (
        len(arguments) != 3
        or type(arguments[0]) is not _Name
        or arguments[0].path != "numpy.ndarray"
        or arguments[1] != (0,)
        or arguments[2] not in (b"b", "b")
    ):
        raise PickleError("an array is not given as NumPy gives it")
    return _Array()


def _called_scalar(machine: "_Machine", arguments: tuple) -> Any:
    if len(arguments) != 2 or type(arguments[0]) is not _DType:
        raise PickleError("a number is not given as NumPy gives it")
    machine.spend(OBJECT)
    return stand_in_scalar(*arguments)


def stand_in_scalar(dtype: _DType, raw: Any) -> Any:
    """One of NumPy's numbers.

    Raises:
        PickleError: its bytes are not those of the type.
    """
    return plain_array(_raw(raw), (), _plain(dtype), False)[()]


def checked_state(state: tuple) -> _Array:
    """What stands for an array, by its state.

    Raises:
        PickleError: it is not NumPy's.
    """
    array = _Array()
    array.set_state(state)
    return array


def _called_frombuffer(machine: "_Machine", arguments: tuple) -> _Array:
    if len(arguments) != 4 or arguments[3] not in ("C", "F"):
        raise PickleError("an array is not given as NumPy gives it")
    raw, dtype, shape, order = arguments
    array = _Array()
    array.set_state((1, shape, dtype, order == "F", raw))
    return array


def _called_encode(machine: "_Machine", arguments: tuple) -> bytes:
    if len(arguments) != 2 or type(arguments[0]) is not str or arguments[1] not in ("latin1", "latin-1"):
        raise PickleError("bytes are given as text of an encoding other than latin1")
    machine.spend(len(arguments[0]) + OBJECT)
    return _latin1(arguments[0])


def _called_bytes(machine: "_Machine", arguments: tuple) -> bytes:
    if arguments:
        raise PickleError("bytes are not given as pickles give them")
    return b""


def _called_ordered(machine: "_Machine", arguments: tuple) -> OrderedDict:
    if arguments:
        raise PickleError("an OrderedDict is not given as pickles give it")
    machine.spend(4 * OBJECT)
    return OrderedDict()


def _called_storage(machine: "_Machine", arguments: tuple) -> _Storage:
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
    at = 0
    parts = []
    for _ in range(5):
        part = _Machine(raw[at:], _STORAGES, has_persistent=True)
        parts.append(part.load())
        at += part.at
    mark, _, system, storage, keys = parts
    if mark != 0x1950A86A20F9469CFC6C or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise PickleError("a tensor's numbers are not given as PyTorch gives them")
    if type(storage) is not _Storage or not isinstance(keys, list) or len(keys) != 1 or len(raw) < at + 8:
        raise PickleError("a tensor's numbers are not given as PyTorch gives them")
    count = struct.unpack("<q", raw[at : at + 8])[0]
    storage.raw = raw[at + 8 :]
    if count != storage.count or len(storage.raw) != count * storage.item:
        raise PickleError(f"a tensor's {storage.count} values do not take the {len(storage.raw)} bytes that are there")
    return storage


def _called_tensor(machine: "_Machine", arguments: tuple) -> _Tensor:
    if len(arguments) not in (6, 7) or type(arguments[0]) is not _Storage or arguments[0].raw is None:
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
    return _Tensor(storage, offset, shape, strides)


def _plain(dtype: _DType) -> np.dtype:
    if dtype.kind == "O":
        raise PickleError("a number or an array of objects is made of bytes")
    return dtype.numpy()


def _names() -> dict[tuple[str, str], _Name]:
    calls: dict[tuple[str, str], Callable[[_Machine, tuple], Any] | None] = {
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): _called_dtype,
        ("_codecs", "encode"): _called_encode,
        ("builtins", "bytes"): _called_bytes,
        ("__builtin__", "bytes"): _called_bytes,
        ("collections", "OrderedDict"): _called_ordered,
        ("torch._utils", "_rebuild_tensor_v2"): _called_tensor,
        ("torch.storage", "_load_from_bytes"): _called_storage,
    }
    for core in ("numpy.core", "numpy._core"):
        calls[f"{core}.multiarray", "_reconstruct"] = _called_reconstruct
        calls[f"{core}.multiarray", "scalar"] = _called_scalar
        calls[f"{core}.numeric", "_frombuffer"] = _called_frombuffer
    words = {"b": "Bool", "i": "Int", "u": "UInt", "f": "Float", "c": "Complex"}
    for kind, sizes in KINDS.items():
        for size in sizes:
            name = f"{words[kind]}{'' if kind == 'b' else 8 * size}DType"
            calls["numpy.dtypes", name] = _called_named_dtype(kind, size)
    return {name: _Name(".".join(name), call) for name, call in calls.items()}


_NAMES = _names()
_STORED = {
    "Bool": ("b", 1), "Byte": ("u", 1), "Char": ("i", 1), "Short": ("i", 2), "Int": ("i", 4), "Long": ("i", 8),
    "Half": ("f", 2), "Float": ("f", 4), "Double": ("f", 8), "ComplexFloat": ("c", 8), "ComplexDouble": ("c", 16),
}  # fmt: skip
_STORAGES = {("torch", f"{word}Storage"): _Name(word) for word in _STORED}


# --- the machine


class _Machine:
    """Runs one pickle.

    Attributes:
        at: position after the opcodes that have run.
    """

    def __init__(self, view: memoryview, names: dict[tuple[str, str], _Name], has_persistent: bool = False) -> None:
        self.view = view
        self.at = 0
        self.names = names
        self.has_persistent = has_persistent
        self.budget = BUDGET * len(view) + LEAST_BUDGET
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks under the open marks
        self.memo: list[Any] = []

    def load(self) -> Any:
        """Runs the opcodes up to the last and returns the one value that they leave.

        Raises:
            PickleError: see `loads`.
        """
        view = self.view
        end = len(view)
        try:
            for _ in range(MOST_OPCODES):
                if self.at >= end:
                    raise PickleError("it ends before its content is complete")
                code = view[self.at]
                self.at += 1
                if code == 0x2E:  # STOP
                    if self.below or len(self.stack) != 1:
                        raise PickleError("it ends with parts left over")
                    return self.stack.pop()
                handler = _HANDLERS.get(code)
                if handler is None:
                    raise PickleError(f"opcode {bytes([code])!r} at byte {self.at - 1} is none that arrays need")
                handler(self)
        except (IndexError, UnicodeDecodeError, struct.error):
            raise PickleError(f"its opcodes do not fit together at byte {self.at}") from None
        raise PickleError(f"it has more than {MOST_OPCODES} opcodes")

    def spend(self, size: int) -> None:
        """Takes bytes from the budget."""
        self.budget -= size
        if self.budget < 0:
            raise PickleError("it would take memory out of proportion to its size")

    # Reading

    def take(self, size: int) -> memoryview:
        """The next bytes."""
        if size > len(self.view) - self.at:
            raise PickleError(f"it claims {size} bytes where {len(self.view) - self.at} are left")
        self.at += size
        return self.view[self.at - size : self.at]

    def number(self, size: int) -> int:
        """The next bytes as a number without sign."""
        return int.from_bytes(self.take(size), "little")

    def line(self) -> str:
        """The text up to the next end of a line, of at most 200 bytes."""
        text = bytes(self.view[self.at : self.at + 200])
        end = text.find(b"\n")
        if end < 0:
            raise PickleError("a name in it has no end")
        self.at += end + 1
        return text[:end].decode("utf-8")

    def text(self, size: int, encoding: str = "utf-8") -> None:
        """Pushes text of a number of bytes."""
        self.spend(OBJECT)
        # pickles keep lone surrogates of Python's text
        self.stack.append(str(self.take(size), encoding, "surrogatepass" if encoding == "utf-8" else "strict"))

    def bytes_of(self, size: int) -> None:
        """Pushes bytes."""
        self.spend(OBJECT)
        taken = self.take(size)
        self.stack.append(taken if size > VIEWED else bytes(taken))

    # Opcodes

    def proto(self) -> None:
        """The version."""
        if self.number(1) > 5:
            raise PickleError("it is of an unknown version of pickles")

    def frame(self) -> None:
        """The length of the next part, which is not needed."""
        size = self.number(8)
        if size > len(self.view) - self.at:
            raise PickleError(f"it claims {size} bytes where {len(self.view) - self.at} are left")

    def mark(self) -> None:
        """Begins a list of items."""
        self.spend(OBJECT)
        self.below.append(self.stack)
        self.stack = []

    def items(self) -> list[Any]:
        """Ends it."""
        items = self.stack
        self.stack = self.below.pop()
        return items

    def integer(self) -> None:
        """Four bytes with a sign."""
        self.stack.append(int.from_bytes(self.take(4), "little", signed=True))

    def long(self) -> None:
        """A number of any size."""
        size = self.number(1)
        if size > LARGEST_INTEGER:
            raise PickleError(f"it holds an integer of {size} bytes")
        self.stack.append(int.from_bytes(self.take(size), "little", signed=True))

    def float(self) -> None:
        """Eight bytes."""
        self.stack.append(struct.unpack(">d", self.take(8))[0])

    def push(self, value: Any) -> None:
        """Any new value."""
        self.spend(OBJECT)
        self.stack.append(value)

    def tuple_of(self, count: int) -> None:
        """The last values as a tuple."""
        if len(self.stack) < count:
            raise IndexError
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push(items)

    def append(self, items: list[Any]) -> None:
        """Lengthens a list."""
        if type(self.stack[-1]) is not list:
            _refuse_target(self.stack[-1], "lengthened")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        """Fills a dictionary."""
        target = self.stack[-1]
        if type(target) not in (dict, OrderedDict):
            _refuse_target(target, "filled")
        if len(items) % 2:
            raise IndexError
        self.spend(OBJECT * len(items))
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (int, str) and not isinstance(key, np.integer):
                raise PickleError(f"a key of a dictionary is {_kind_of(key)}, neither an integer nor text")
            target[key] = value

    def keep(self, index: int) -> None:
        """Keeps the last value for later use."""
        if index == 1 and not self.memo:  # Python 2 counts from 1
            self.memo.append(None)
        if index < len(self.memo):
            self.memo[index] = self.stack[-1]
        elif index == len(self.memo):
            self.memo.append(self.stack[-1])
        else:
            raise PickleError(f"it keeps value {index} after {len(self.memo)}")

    def name(self, module: Any, name: Any) -> None:
        """Pushes the stand-in for a name."""
        if type(module) is not str or type(name) is not str:
            raise PickleError("it names something by other than text")
        found = self.names.get((module, name))
        if found is None:
            raise ForeignNameError(f"it names {module[:100]}.{name[:100]}")
        self.stack.append(found)

    def call(self) -> None:
        """Lets the stand-in for a function record its arguments."""
        arguments = self.stack.pop()
        function = self.stack.pop()
        if type(function) is not _Name or function.call is None or type(arguments) is not tuple:
            raise PickleError(f"it calls {_kind_of(function)}, which is no function of arrays")
        self.push(function.call(self, arguments))

    def build(self) -> None:
        """Gives an array or type its state."""
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) not in (_Array, _DType):
            _refuse_target(target, "given a state")
        target.set_state(state)

    def persistent(self) -> None:
        """A storage by its description."""
        value = self.stack.pop()
        if not self.has_persistent or type(value) is not tuple or len(value) != 6:
            raise PickleError("it refers to something outside of itself")
        word, kind, _, _, count, part = value
        if word != "storage" or type(kind) is not _Name or type(count) is not int or count < 0 or part is not None:
            raise PickleError("a tensor's numbers are not given as PyTorch gives them")
        self.push(_Storage(*_STORED[kind.path], count))


def _refuse_target(target: Any, verb: str) -> NoReturn:
    raise PickleError(f"{_kind_of(target)} is to be {verb}")


def _void(_: Any) -> None:
    """Drops a value."""


_HANDLERS: dict[int, Callable[[_Machine], None]] = {
    ord(code): handler
    for code, handler in {
        b"\x80": _Machine.proto,
        b"\x95": _Machine.frame,
        b"(": _Machine.mark,
        b"0": lambda m: _void(m.stack.pop() if m.stack else m.items()),
        b"1": lambda m: _void(m.items()),
        b"N": lambda m: m.stack.append(None),
        b"\x88": lambda m: m.stack.append(True),
        b"\x89": lambda m: m.stack.append(False),
        b"J": _Machine.integer,
        b"K": lambda m: m.stack.append(m.number(1)),
        b"M": lambda m: m.stack.append(m.number(2)),
        b"\x8a": _Machine.long,
        b"G": _Machine.float,
        b"X": lambda m: m.text(m.number(4)),
        b"\x8c": lambda m: m.text(m.number(1)),
        b"\x8d": lambda m: m.text(m.number(8)),
        b"T": lambda m: m.text(m.number(4), "latin1"),
        b"U": lambda m: m.text(m.number(1), "latin1"),
        b"B": lambda m: m.bytes_of(m.number(4)),
        b"C": lambda m: m.bytes_of(m.number(1)),
        b"\x8e": lambda m: m.bytes_of(m.number(8)),
        b"\x96": lambda m: m.bytes_of(m.number(8)),
        b")": lambda m: m.stack.append(()),
        b"t": lambda m: m.push(tuple(m.items())),
        b"\x85": lambda m: m.tuple_of(1),
        b"\x86": lambda m: m.tuple_of(2),
        b"\x87": lambda m: m.tuple_of(3),
        b"]": lambda m: m.push([]),
        b"l": lambda m: m.push(m.items()),
        b"a": lambda m: m.append([m.stack.pop()]),
        b"e": lambda m: m.append(m.items()),
        b"}": lambda m: m.push({}),
        b"s": lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
        b"u": lambda m: m.set_items(m.items()),
        b"h": lambda m: m.stack.append(m.memo[m.number(1)]),
        b"j": lambda m: m.stack.append(m.memo[m.number(4)]),
        b"q": lambda m: m.keep(m.number(1)),
        b"r": lambda m: m.keep(m.number(4)),
        b"\x94": lambda m: m.keep(len(m.memo)),
        b"c": lambda m: m.name(m.line(), m.line()),
        b"\x93": lambda m: m.name(m.stack.pop(-2), m.stack.pop()),
        b"R": _Machine.call,
        b"b": _Machine.build,
        b"Q": _Machine.persistent,
    }.items()
}


# --- what the machine leaves, as values


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
        if type(part) is _Array and part.raw is not None:
            return self._array(part, depth)
        if type(part) is _Tensor:
            storage = part.storage
            dtype = np.dtype(f"<{storage.kind}{storage.item}")
            strides = [stride * storage.item for stride in part.strides]
            array = np.ndarray(part.shape, dtype, storage.raw, part.offset * storage.item, strides).copy()
            return array, array.nbytes + OBJECT
        raise PickleError(f"it holds {_kind_of(part)}, which is no array")

    def _array(self, part: _Array, depth: int) -> tuple[Any, int]:
        if part.dtype.kind != "O":
            array = part.built()
            return array, array.nbytes + OBJECT
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
