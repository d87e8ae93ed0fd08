"""A small machine that runs the opcodes of a pickle and can build plain values and stand-ins alone.

Memory and time are bounded: by a budget of bytes in proportion to the file, and by a number of opcodes.
"""

import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

from common.run.pickles.arrays import ForeignNameError, PickleError
from common.run.pickles.stand_ins import (
    NAMES,
    OBJECT,
    RECONSTRUCT,
    Array,
    DType,
    Name,
    kind_of,
    tensor_storage,
)
from common.run.pickles.whole import run_array

MOST_OPCODES = 10_000_000  # a label table of 400,000 images; some seconds
LARGEST_INTEGER = 16  # bytes
LEAST_BUDGET = 2**20
BUDGET = 16  # bytes that a byte of the file may take in memory; a tuple of one value takes one byte there and 48 here
VIEWED = 1024  # longer runs of bytes are not copied out of the file
Names = Mapping[tuple[str, str], Name]


class Machine:
    """Runs one pickle.

    Attributes:
        at: position after the opcodes that have run.
    """

    def __init__(self, view: memoryview, names: Names = NAMES, persistent: Callable[[Any], Any] | None = None) -> None:
        """Begins before the first opcode.

        Args:
            names: what may be named, and the stand-ins.
            persistent: gives a value by its persistent id; None: there are none.
        """
        self.view = view
        self.at = 0
        self.names = names
        self.persistent_value = persistent
        self.budget = BUDGET * len(view) + LEAST_BUDGET
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks under the open marks
        self.memo: list[Any] = []
        self.shapes: dict[bytes, tuple[int, ...]] = {}  # by the opcodes of their numbers

    def load(self) -> Any:
        """Runs the opcodes up to the last and returns the one value that they leave.

        Raises:
            PickleError: see `loads`.
        """
        view = self.view
        end = len(view)
        handlers = self.handlers()
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
                handler = handlers.get(code)
                if handler is None:
                    raise PickleError(f"opcode {bytes([code])!r} at byte {self.at - 1} is none that is needed")
                handler(self)
        except (IndexError, UnicodeDecodeError, struct.error):
            raise PickleError(f"its opcodes do not fit together at byte {self.at}") from None
        raise PickleError(f"it has more than {MOST_OPCODES} opcodes")

    def parts(self, content: memoryview, count: int, names: Names) -> tuple[list[Any], int]:
        """The values of pickles of a tensor's numbers that follow each other, and the position after them."""
        at = 0
        values = []
        for _ in range(count):
            machine = Machine(content[at:], names, tensor_storage)
            values.append(machine.load())
            at += machine.at
        return values, at

    def handlers(self) -> dict[int, Callable[[Any], None]]:
        """What runs, by opcode."""
        return HANDLERS

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

    def byte(self) -> int:
        """The next byte."""
        self.at += 1
        return self.view[self.at - 1]

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
        if self.byte() > 5:
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
        size = self.byte()
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
            if type(key) is not int and type(key) is not str:
                self.check_key(key)
            target[key] = value

    def check_key(self, key: Any) -> None:
        """Refuses other keys of a dictionary than integers and text."""
        if not isinstance(key, np.integer):
            raise PickleError(f"a key of a dictionary is {kind_of(key)}, neither an integer nor text")

    def keep(self, index: int, value: Any) -> None:
        """Keeps a value for later use."""
        if index == 1 and not self.memo:  # Python 2 counts from 1
            self.memo.append(None)
        if index < len(self.memo):
            self.memo[index] = value
        elif index == len(self.memo):
            self.memo.append(value)
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
        if type(function) is not Name or function.call is None or type(arguments) is not tuple:
            raise PickleError(f"it calls {kind_of(function)}, which is no function of arrays")
        self.push(function.call(self, arguments))

    def build(self) -> None:
        """Gives an array or type its state."""
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) not in (Array, DType):
            _refuse_target(target, "given a state")
        target.set_state(state)

    def persistent(self) -> None:
        """A value by its description."""
        if self.persistent_value is None:
            raise PickleError("it refers to something outside of itself")
        self.push(self.persistent_value(self.stack.pop()))

    def get(self, index: int) -> None:
        """Pushes a value that was kept, and a whole array if it is the function that makes one."""
        value = self.memo[index]
        self.stack.append(value)
        if value is RECONSTRUCT:
            run_array(self)


def _refuse_target(target: Any, verb: str) -> NoReturn:
    raise PickleError(f"{kind_of(target)} is to be {verb}")


def _void(_: Any) -> None:
    """Drops a value."""


HANDLERS: dict[int, Callable[[Machine], None]] = {
    ord(code): handler
    for code, handler in {
        b"\x80": Machine.proto,
        b"\x95": Machine.frame,
        b"(": Machine.mark,
        b"0": lambda m: _void(m.stack.pop() if m.stack else m.items()),
        b"1": lambda m: _void(m.items()),
        b"N": lambda m: m.stack.append(None),
        b"\x88": lambda m: m.stack.append(True),
        b"\x89": lambda m: m.stack.append(False),
        b"J": Machine.integer,
        b"K": lambda m: m.stack.append(m.byte()),
        b"M": lambda m: m.stack.append(m.number(2)),
        b"\x8a": Machine.long,
        b"G": Machine.float,
        b"X": lambda m: m.text(m.number(4)),
        b"\x8c": lambda m: m.text(m.byte()),
        b"\x8d": lambda m: m.text(m.number(8)),
        b"T": lambda m: m.text(m.number(4), "latin1"),
        b"U": lambda m: m.text(m.byte(), "latin1"),
        b"B": lambda m: m.bytes_of(m.number(4)),
        b"C": lambda m: m.bytes_of(m.byte()),
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
        b"h": lambda m: m.get(m.byte()),
        b"j": lambda m: m.get(m.number(4)),
        b"q": lambda m: m.keep(m.byte(), m.stack[-1]),
        b"r": lambda m: m.keep(m.number(4), m.stack[-1]),
        b"\x94": lambda m: m.memo.append(m.stack[-1]),
        b"c": lambda m: m.name(m.line(), m.line()),
        b"\x93": lambda m: m.name(m.stack.pop(-2), m.stack.pop()),
        b"R": Machine.call,
        b"b": Machine.build,
        b"Q": Machine.persistent,
    }.items()
}
