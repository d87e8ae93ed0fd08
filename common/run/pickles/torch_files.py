"""Checks the pickles in files of `torch.save` before PyTorch reads them.

PyTorch's own reader of tensors and plain containers (``weights_only=True``) runs no code, but the functions that it
admits can be given arguments for which they take any memory or time, and its keys may take forever to hash. Here the
opcodes run once with stand-ins that build nothing, within the machine's bounds.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from common.run.pickles.arrays import PickleError
from common.run.pickles.machine import HANDLERS, Machine, Names
from common.run.pickles.stand_ins import OBJECT, Call, Calling, Name, kind_of

PLAIN = (int, float, bool, str, bytes, type(None))
LONGEST_KEY = 8  # values of a tuple that is a key
LEGACY_PARTS = 5  # pickles of the format before zip files: mark, version, sizes of C's types, content, keys of storages


class Built:
    """Stands for anything that PyTorch builds; what it is given is dropped."""

    __slots__ = ()

    def set_state(self, state: Any) -> None:
        """Takes any."""


def _inert(machine: Calling, arguments: tuple) -> Built:
    return Built()


def _encode(machine: Calling, arguments: tuple) -> Built:
    if len(arguments) != 2 or type(arguments[0]) is not str or arguments[1] not in ("latin1", "latin-1"):
        raise PickleError("bytes are given as text of an encoding other than latin1")
    return Built()


def _bytearray(machine: Calling, arguments: tuple) -> Built:
    if not all(isinstance(value, str | bytes | memoryview | Built) for value in arguments):
        raise PickleError("bytes are given by their number alone")
    return Built()


def _elements(machine: Calling, arguments: tuple) -> Built:
    for value in arguments:
        if not isinstance(value, list | dict | tuple):
            raise PickleError(f"a set is made of {kind_of(value)}")
        check_keys(value)
    return Built()


def _ordered(machine: Calling, arguments: tuple) -> OrderedDict:
    """Empty, or of a list of pairs as Python 2 writes it."""
    pairs = arguments[0] if arguments else []
    if (
        len(arguments) > 1
        or type(pairs) is not list
        or not all(type(p) in (list, tuple) and len(p) == 2 for p in pairs)
    ):
        raise PickleError("an OrderedDict is not given as pickles give it")
    check_keys(key for key, _ in pairs)
    machine.spend(4 * OBJECT * (1 + len(pairs)))
    return OrderedDict(pairs)


def _dictionary(machine: Calling, arguments: tuple) -> dict:
    machine.spend(4 * OBJECT)
    return {}


def _quantised(machine: Calling, arguments: tuple) -> Built:
    size = arguments[2] if len(arguments) > 2 else None
    if type(size) is not tuple or not all(type(side) is int and side >= 0 for side in size):
        raise PickleError("a quantised tensor is not given as PyTorch gives it")
    machine.spend(math.prod(size))
    return Built()


def _subclass(machine: Calling, arguments: tuple) -> Built:
    """A tensor with attributes: a function, a class, the function's arguments, the attributes."""
    if len(arguments) != 4 or type(arguments[0]) is not Name or arguments[0].call not in (_inert, _quantised):
        raise PickleError("a tensor is not given as PyTorch gives it")
    if type(arguments[2]) is not tuple:
        raise PickleError("a tensor is not given as PyTorch gives it")
    return arguments[0].call(machine, arguments[2])


REBUILD = (
    "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter",
    "_rebuild_parameter_with_state", "_rebuild_sparse_tensor", "_rebuild_meta_tensor_no_storage",
)  # fmt: skip
DTYPES = (
    "float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex32", "complex64",
    "complex128", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "bool", "quint8", "qint8",
    "qint32", "per_tensor_affine", "per_channel_affine", "per_tensor_symmetric", "per_channel_symmetric",
)  # fmt: skip
STORED = {  # bytes of a value
    **{f"torch.{word}Storage": 1 for word in ("Bool", "Byte", "Char", "QInt8", "QUInt8")},
    **{f"torch.{word}Storage": 2 for word in ("Short", "Half", "BFloat16")},
    **{f"torch.{word}Storage": 4 for word in ("Int", "Float", "QInt32")},
    **{f"torch.{word}Storage": 8 for word in ("Long", "Double", "ComplexFloat")},
    "torch.ComplexDoubleStorage": 16,
    "torch.storage.UntypedStorage": 1,
    "torch.UntypedStorage": 1,
}


def torch_names(harmless: Iterable[str]) -> Names:
    """What a file of weights may name.

    Args:
        harmless: dotted names besides PyTorch's, for which the reader has stand-ins of its own.
    """
    calls: dict[str, Call | None] = dict.fromkeys(harmless, _inert)
    calls |= {f"torch._utils.{name}": _inert for name in REBUILD}
    calls |= dict.fromkeys((*(f"torch.{name}" for name in DTYPES), *STORED), None)
    calls |= {
        "torch._utils._rebuild_qtensor": _quantised,
        "torch._tensor._rebuild_from_type_v2": _subclass,
        "torch.Tensor": None,
        "torch.nn.parameter.Parameter": _inert,
        "torch.Size": _inert,
        "torch.device": _inert,
        "torch.serialization._get_layout": _inert,
        "collections.OrderedDict": _ordered,
        "_codecs.encode": _encode,
    }
    calls |= {
        "collections.Counter": _elements,
        "collections.defaultdict": _dictionary,
        "builtins.bytearray": _bytearray,
        "builtins.set": _elements,
        "builtins.complex": _inert,
    }
    # as Python 2 names them, and pickles of protocol 2, which torch.save writes
    calls |= {f"__builtin__.{path.split('.')[1]}": calls[path] for path in calls if path.startswith("builtins.")}
    found = {}
    for path, call in calls.items():
        module, _, name = path.rpartition(".")
        found[module, name] = Name(path, call)
    return found


def check_keys(keys: Iterable[Any]) -> None:
    """Refuses keys that may take long to hash.

    Raises:
        PickleError: one is neither a plain value nor a short tuple of them.
    """
    for key in keys:
        parts = key if type(key) is tuple and len(key) <= LONGEST_KEY else (key,)
        for part in parts:
            if type(part) not in (*PLAIN, Built, Name) and not isinstance(part, np.generic):
                raise PickleError(f"a key of a dictionary is {kind_of(part)}")


class _TorchMachine(Machine):
    """Runs a pickle of `torch.save`: more types of keys, new objects, storages by their description."""

    def handlers(self) -> dict[int, Callable[[Any], None]]:
        """More opcodes."""
        return TORCH_HANDLERS

    def check_key(self, key: Any) -> None:
        """As `check_keys`."""
        check_keys((key,))

    def drop_state(self) -> None:
        """Drops the state of an object."""
        self.stack.pop()
        if type(self.stack[-1]) not in (Built, OrderedDict):
            raise PickleError(f"{kind_of(self.stack[-1])} is to be given a state")


TORCH_HANDLERS: dict[int, Callable[[Any], None]] = {
    **HANDLERS,
    ord("b"): _TorchMachine.drop_state,
    0x81: Machine.call,  # NEWOBJ
}


def check_zip_pickle(content: bytes, sizes: Mapping[str, int], names: Names) -> None:
    """Checks the pickle in a zip file of `torch.save`.

    Args:
        sizes: bytes of the storages, by their keys.
        names: see `torch_names`.

    Raises:
        ForeignNameError: it names something else.
        PickleError: it is damaged, disagrees with the storages, or would take memory or time out of proportion.
    """

    def storage(value: Any) -> Built:
        key, size = _storage(value)
        if sizes.get(key) != size:
            raise PickleError(f"storage {key[:20]!r} is to have {size} bytes, but has {sizes.get(key, 'none')}")
        return Built()

    _TorchMachine(memoryview(content), names, storage).load()


def check_legacy(content: memoryview, names: Names) -> None:
    """Checks a file of the format before zip files: five pickles, then the storages.

    Raises:
        PickleError: as `check_zip_pickle`.
    """
    room = len(content)

    def storage(value: Any) -> Built:
        nonlocal room
        key, size = _storage(value)
        if key not in seen:
            seen.add(key)
            room -= size
        if room < 0:
            raise PickleError("its storages are to have more bytes than the file")
        return Built()

    seen: set[str] = set()
    at = 0
    for _ in range(LEGACY_PARTS):
        machine = _TorchMachine(content[at:], names, storage)
        machine.load()
        at += machine.at


def _storage(value: Any) -> tuple[str, int]:
    """Key and size in bytes of a storage that a pickle describes."""
    if type(value) is not tuple or len(value) not in (5, 6) or value[0] not in ("storage", b"storage"):
        raise PickleError("a tensor's numbers are not given as PyTorch gives them")
    kind, key, _, count = value[1:5]
    item = STORED.get(kind.path) if type(kind) is Name else None
    if item is None or type(key) is not str or type(count) is not int or count < 0:
        raise PickleError("a tensor's numbers are not given as PyTorch gives them")
    return key, count * item
