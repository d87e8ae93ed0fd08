"""Mutation fuzzing of readers: every input must give a value or a `UserError` of one line.

Inputs are read in a child process of limited memory and time, as a reader that fails may take its process with it. The
child says which input it reads before it reads it, so that the parent knows what a signal or a hang belongs to.
"""

import os
import random
import resource
import select
import signal
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.run.errors import UserError

BATCH = 500  # inputs of one child process
SECONDS = 5  # that one input may take; the machine may be busy
ROOM = 2**30  # bytes that a child may take beyond its start
LONGEST = 4000  # characters of a message
INSERTED = (
    b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80", b"-1", b"0", b"1e999", b"NaN", b"null", b"[]",
    b"{}", b"[[]]", b'"', b"'", b"..", b"/", b"\n", b",", b";", b":", b"=", b"99999999999999999999", b"\xc2\xb2",
    b"\xef\xbb\xbf", b"\xff\xfe", b"&a", b"*a", b"true", b"-", b"<!DOCTYPE a>", b'encoding="utf-16"', b"&x;", b"<",
    b">",    b"]", b"[", b"{", b"}", b"1.5", b"inf", b"\xe2\x80\xa8", b"0x10", b"${a}", b"!!python/object:os.system",
)  # fmt: skip
INTEGERS = (0, 1, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 1 << 16, 1 << 24)


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        suffix: of the files that it is given.
        read: reads a file; what it returns does not matter.
        samples: makes sound files, which are then mutated.
    """

    suffix: str
    read: Callable[[Path], Any]
    samples: Callable[[], list[bytes]]


@dataclass
class Findings:
    """What became of the inputs of a reader.

    Attributes:
        values: inputs that gave a value.
        errors: inputs that gave a clear line.
        failures: numbers of other outcomes, by what they were.
        saved: first input of each failure.
    """

    values: int = 0
    errors: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    saved: dict[str, bytes] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Inputs in all."""
        return self.values + self.errors + self.failures.total()

    def add(self, outcome: str, content: bytes) -> None:
        """Counts one input."""
        if outcome == "value":
            self.values += 1
        elif outcome == "error":
            self.errors += 1
        else:
            self.failures[outcome] += 1
            self.saved.setdefault(outcome, content)


def mutated(rng: random.Random, samples: Sequence[bytes]) -> bytes:
    """A sound file with one to eight changes: bits, bytes, numbers, parts of other files, parts cut out or doubled."""
    content = bytearray(rng.choice(samples))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4, 8))):
        at = rng.randrange(len(content) + 1)
        size = rng.choice((1, 1, 2, 4, 8, 16, 64))
        kind = rng.randrange(9)
        if kind == 0 and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(content):
            content[at] = rng.randrange(256)
        elif kind == 2:
            del content[at : at + size]
        elif kind == 3:
            content[at:at] = rng.choice(INSERTED)
        elif kind == 4:
            part = rng.choice(INSERTED)
            content[at : at + len(part)] = part
        elif kind == 5:
            content[at:at] = content[at : at + size]
        elif kind == 6 and rng.random() < 0.3:
            del content[at:]
        elif kind == 7:
            other = rng.choice(samples)
            start = rng.randrange(len(other) + 1)
            content[at:at] = other[start : start + size]
        else:
            number = rng.choice((*INTEGERS, rng.randrange(1 << 32)))
            content[at : at + 4] = struct.pack(rng.choice(("<I", ">I")), number)
    return bytes(content)


def fuzz(reader: Reader, folder: Path, seconds: float, seed: int = 0, most: int = 0) -> Findings:
    """Reads mutated files for a time.

    Args:
        folder: for the files, which are replaced again and again.
        seed: of the mutations.
        most: inputs, should the time suffice for more; 0: any number.
    """
    rng = random.Random(seed)
    samples = reader.samples()
    findings = Findings()
    end = time.monotonic() + seconds
    while time.monotonic() < end and (not most or findings.total < most):
        count = min(BATCH, most - findings.total) if most else BATCH
        batch = [mutated(rng, samples) for _ in range(count)]
        done = 0
        while done < len(batch) and time.monotonic() < end + SECONDS:
            outcomes = _outcomes(reader, folder, batch[done:], end)
            for outcome in outcomes:
                findings.add(outcome, batch[done])
                done += 1
            if not outcomes:
                break
    return findings


def _outcomes(reader: Reader, folder: Path, batch: Sequence[bytes], end: float) -> list[str]:
    """The outcomes of a child process, up to the input that ended it."""
    receive, send = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.close(receive)
        _child(reader, folder, batch, send, end)
    os.close(send)
    text = b""
    killed = ""
    while True:
        if not select.select([receive], [], [], 3 * SECONDS)[0]:
            os.kill(child, signal.SIGKILL)
            killed = "hangs without reacting to a signal"
        part = os.read(receive, 65536)
        if not part:
            break
        text += part
    os.close(receive)
    status = os.waitpid(child, 0)[1]
    outcomes = text.decode().split("\n")[:-1]
    begun = bool(outcomes) and outcomes[-1] == "begin"
    outcomes = [outcome for outcome in outcomes if outcome != "begin"]
    if os.WIFSIGNALED(status) and begun:
        outcomes.append(killed or f"ends the process by signal {os.WTERMSIG(status)}")
    return outcomes


def _child(reader: Reader, folder: Path, batch: Sequence[bytes], send: int, end: float) -> None:
    """Reads inputs and sends their outcomes, one line each; never returns."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    size = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _expired)
    path = folder / f"input{reader.suffix}"
    for content in batch:
        if time.monotonic() > end:
            break
        path.write_bytes(content)
        os.write(send, b"begin\n")
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        outcome = outcome_of(reader, path)
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.write(send, outcome.encode("utf-8", "replace") + b"\n")
    os._exit(0)


class _Expired(BaseException):
    """An input takes too long; no reader catches it."""


def _expired(*unused: Any) -> None:
    raise _Expired


def outcome_of(reader: Reader, path: Path) -> str:
    """``value``, ``error``, or what else became of reading a file, in one line."""
    try:
        reader.read(path)
    except UserError as error:
        message = str(error)
        if not message or "\n" in message.strip() or len(message) > LONGEST:
            return f"a message of {len(message)} characters in {message.count(chr(10)) + 1} lines: {message[:60]!r}"
        return "error"
    except _Expired:
        return f"takes over {SECONDS} s"
    except BaseException as error:  # whatever it is: this is what is looked for
        last = traceback.extract_tb(error.__traceback__)[-1]
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
        place = (own or [last])[-1]
        return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {str(error)[:80]!r}"
    return "value"
