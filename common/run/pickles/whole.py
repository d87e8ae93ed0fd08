"""Runs the opcodes of a whole array at once, where they are as NumPy writes them: label tables hold thousands.

The effect on the machine is that of the single opcodes; where a byte differs, those run instead.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from common.run.pickles.stand_ins import NDARRAY, OBJECT, Array

if TYPE_CHECKING:
    from common.run.pickles.machine import Machine

# Opcodes after the name of the function that makes an array, up to its content; and from there on.
GET = rb"(h.|j.{4})"  # something from the memo
KEEP = rb"(\x94|q.|r.{4})?"  # the last value is kept there
NUMBER = rb"(?:K.|M..|J.{4})"
ARRAY = re.compile(
    GET + rb"K\x00\x85" + KEEP + GET + rb"\x87" + KEEP + rb"R" + KEEP
    + rb"\(K\x01(" + NUMBER + rb"{1,3})([\x85-\x87])" + KEEP + GET + rb"([\x88\x89])",
    re.DOTALL,
)  # fmt: skip
BUILD = re.compile(KEEP + rb"t" + KEEP + rb"b", re.DOTALL)
BYTES = {0x43: 1, 0x42: 4, 0x8E: 8}  # opcodes of bytes: bytes of their length
MEMOIZE = b"\x94"
TRUE = b"\x88"
FEW = 1024  # bytes of content
TUPLE0 = 0x84  # the opcode of a tuple of one value is the next


def run_array(machine: "Machine") -> None:
    """Runs an array, if it is written so; the name of the function that makes it is the last value."""
    found = ARRAY.match(machine.view, machine.at)
    if found is None:
        return
    owner, keep_size, letter, keep_call, keep_array, sides, axes, keep_shape, kind, order = found.groups()
    call = (_kept(machine, owner), (0,), _kept(machine, letter))
    shape = tuple(_numbers(sides))
    if call[0] is not NDARRAY or call[2] not in (b"b", "b") or len(shape) != axes[0] - TUPLE0:
        return
    machine.spend(8 * OBJECT)
    array = machine.stack[-1] = Array()
    _keep(machine, (call[1], call, array, shape), (keep_size, keep_call, keep_array, keep_shape))
    state: tuple = (1, shape, _kept(machine, kind), order == TRUE)
    machine.at = found.end()
    start, end = _content(machine)
    rest = BUILD.match(machine.view, end) if end else None
    if rest is None:
        machine.below.append(machine.stack)
        machine.stack = list(state)
        return
    raw = bytes(machine.view[start:end])
    state = (*state, raw)
    _keep(machine, (raw, state), rest.groups())
    array.set_state(state)
    machine.at = rest.end()


def _content(machine: "Machine") -> tuple[int, int]:
    """Where the bytes of an array begin and end, if its next opcode has few of them; else (0, 0)."""
    view = machine.view
    size = BYTES.get(view[machine.at], 0)
    start = machine.at + 1 + size
    count = int.from_bytes(view[machine.at + 1 : start], "little")
    return (start, start + count) if size and count <= FEW and start + count < len(view) else (0, 0)


def _kept(machine: "Machine", opcode: bytes) -> Any:
    """The value that an opcode gets from the memo."""
    return machine.memo[opcode[1] if len(opcode) == 2 else int.from_bytes(opcode[1:], "little")]


def _keep(machine: "Machine", values: tuple[Any, ...], opcodes: tuple[bytes | None, ...]) -> None:
    """Keeps each value where an opcode says so."""
    if opcodes.count(MEMOIZE) == len(opcodes):
        machine.memo.extend(values)
        return
    for value, opcode in zip(values, opcodes, strict=True):
        if opcode:
            machine.keep(len(machine.memo) if opcode == MEMOIZE else int.from_bytes(opcode[1:], "little"), value)


def _numbers(opcodes: bytes) -> Iterator[int]:
    """The integers that opcodes of `NUMBER` push."""
    at = 0
    while at < len(opcodes):
        size = {0x4B: 1, 0x4D: 2, 0x4A: 4}[opcodes[at]]
        yield int.from_bytes(opcodes[at + 1 : at + 1 + size], "little", signed=size == 4)
        at += 1 + size
