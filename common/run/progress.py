"""The one way to show how far long work is: a bar in a terminal, elsewhere a plain line every 30 seconds.

    for index in progress(share, "tuning", processes.is_main):        # whatever is iterated
        ...
    with ProgressBar("images", total, active=processes.is_main) as bar:
        bar.advance(len(batch))
    sizes = map_in_processes(read_size, paths, workers, "images")

Both have the time that is left, on standard error. A file, a CI's log or Slurm's output gets lines such as
``tuning: 320 of 1449 (22 %), 0:41 passed, 2:24 left``.
"""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import ProcessPoolExecutor
from time import monotonic
from typing import ClassVar, TypeVar

from tqdm import tqdm

T = TypeVar("T")
R = TypeVar("R")
INTERVAL = 30  # seconds between two plain lines
CHUNKS = 8  # of jobs that each process of `map_in_processes` gets, so that the slowest does not keep the others waiting


class ProgressBar:
    """Counts units of work and shows their number.

    Plain lines count the seconds of all bars of the process together, so that many short bars, such as one for every
    epoch, are told as well.
    """

    _silent: ClassVar[float] = 0.0  # seconds of closed bars since the last line

    def __init__(
        self, title: str, total: int | None, initial: int = 0, unit: str = "it", active: bool = True
    ) -> None:  # fmt: skip
        """Begins to count.

        Args:
            total: number of units; None: unknown.
            initial: number of those that an earlier call has done.
            unit: name of a unit; bytes ("B") are shown in kilo, mega or giga.
            active: whether this process shows anything.
        """
        self.title, self.total, self.initial, self.unit, self.active = title, total, initial, unit, active
        self.count = initial
        self._text = ""
        self._bar: tqdm | None = None
        if active and sys.stderr.isatty():
            self._bar = tqdm(
                desc=title, total=total, initial=initial, unit=unit, unit_scale=unit == "B", leave=False,
                dynamic_ncols=True,
            )  # fmt: skip
        self._start = monotonic()
        self._last_line = self._start - ProgressBar._silent

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def advance(self, count: int = 1) -> None:
        """Counts units."""
        self.count += count
        if self._bar is not None:
            self._bar.update(count)
        elif self.active and monotonic() - self._last_line >= INTERVAL:
            self._last_line = monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def show(self, text: str) -> None:
        """Shows a text behind the count."""
        self._text = text
        if self._bar is not None:
            self._bar.set_postfix_str(text)

    def line(self) -> str:
        """The plain line."""
        passed = monotonic() - self._start
        done = self.count - self.initial
        if self.total:
            amount = f"{self._number(self.count)} of {self._number(self.total)} ({100 * self.count // self.total} %)"
            rest = math.ceil(passed * (self.total - self.count) / done) if done else None
        else:
            amount, rest = self._number(self.count), None
        left = "" if rest is None else f", {tqdm.format_interval(rest)} left"
        behind = f"; {self._text}" if self._text else ""
        return f"{self.title}: {amount}, {tqdm.format_interval(passed)} passed{left}{behind}"

    def _number(self, count: int) -> str:
        return f"{tqdm.format_sizeof(count)}B" if self.unit == "B" else str(count)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
        elif self.active:
            ProgressBar._silent = monotonic() - self._last_line
            self.active = False


def progress(items: Iterable[T], title: str, active: bool = True, total: int | None = None) -> Iterator[T]:
    """Gives the items, and shows how many are done.

    Args:
        active: whether this process shows anything.
        total: their number, where they do not tell it.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with ProgressBar(title, total, active=active) as bar:
        for item in items:
            yield item
            bar.advance()


def map_in_processes(function: Callable[[T], R], jobs: Sequence[T], workers: int, title: str) -> list[R]:
    """The results of a module's function for each job, in their order; shows how many are done.

    Args:
        workers: number of processes.
    """
    if not jobs:
        return []
    chunk = max(1, min(32, len(jobs) // (CHUNKS * workers)))
    with ProcessPoolExecutor(workers) as pool:
        return list(progress(pool.map(function, jobs, chunksize=chunk), title, total=len(jobs)))
