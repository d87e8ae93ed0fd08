"""The log of a run: text, numbers and curves in its folder."""

import json
import os
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.run.errors import UserError
from common.run.files import atomic_write
from common.run.folder import METRICS_FILE


class RunLog:
    """Text to the terminal and ``log.txt``, numbers to ``metrics.jsonl`` and TensorBoard.

    Only the main process writes.
    """

    def __init__(
        self, folder: Path, active: bool = True, resumed_at: int | None = None, is_scored: bool = True
    ) -> None:  # fmt: skip
        """Opens the files.

        Args:
            resumed_at: the step from which a run resumes; lines of later steps are dropped, as they are written again.
            is_scored: whether the checkpoint of that step knows its validation; else its line is dropped, too.
        """
        self.active = active
        if not active:
            return
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        damaged = 0 if resumed_at is None else drop_after(folder / METRICS_FILE, resumed_at, is_scored)
        self._text = (folder / "log.txt").open("a", encoding="utf-8")
        self._metrics = (folder / METRICS_FILE).open("a", encoding="utf-8")
        self._curves = SummaryWriter(
            str(folder / "tensorboard"), purge_step=None if resumed_at is None else resumed_at + 1
        )
        if damaged:
            self.say(f"WARNING: {damaged} damaged line(s) of {folder / METRICS_FILE} are left out")

    def say(self, text: str) -> None:
        """Writes a line of text; in the file it has date and time."""
        if self.active:
            tqdm.write(text)
            self._text.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")
            self._text.flush()

    def numbers(self, step: int, values: dict[str, float], **context: Any) -> None:
        """Writes a line of ``metrics.jsonl``: step, context (epoch, kind), values; TensorBoard draws the values."""
        if not self.active:
            return
        self._metrics.write(json.dumps({"step": step, **context, **values}) + "\n")
        self._metrics.flush()
        for name, value in values.items():
            self._curves.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes the files."""
        if self.active:
            self._text.close()
            os.fsync(self._metrics.fileno())
            self._metrics.close()
            self._curves.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last line that is being written, or was cut short by a kill, does not count.

    Raises:
        UserError: the file does not exist, or another line is damaged.
    """
    if not path.is_file():
        raise UserError(f"no {path}: a training writes it")
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    read = [_numbers(line) for line in lines]
    for number, values in enumerate(read[:-1], start=1):
        if values is None:
            raise UserError(f"{path}, line {number}, is no line of numbers; remove it")
    return [values for values in read if values is not None]


def _numbers(line: bytes) -> dict[str, Any] | None:
    """The values of a line of a metrics file; None for a damaged one."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_sound = isinstance(values, dict) and isinstance(values.get("step"), int | float)
    return values if is_sound else None


def drop_after(path: Path, step: int, is_scored: bool) -> int:
    """Removes the lines of later steps from a metrics file, and damaged ones, such as a last line that a kill cut.

    Returns:
        The number of damaged lines besides the last.
    """
    if not path.is_file():
        return 0
    kept: list[bytes] = []
    damaged: list[int] = []
    lines = path.read_bytes().split(b"\n")
    last = max((number for number, line in enumerate(lines) if line.strip()), default=0)
    for number, line in enumerate(lines):
        values = _numbers(line)
        if values is not None and _is_kept(values, step, is_scored):
            kept.append(line + b"\n")
        elif values is None and line.strip() and number < last:
            damaged.append(number)
    with atomic_write(path) as file:
        file.writelines(kept)
    return len(damaged)


def _is_kept(values: dict[str, Any], step: int, is_scored: bool) -> bool:
    """Whether a resumed run does not write a line again."""
    is_repeated = values.get("kind") == "validation" and not is_scored
    return values["step"] < step or (values["step"] == step and not is_repeated)
