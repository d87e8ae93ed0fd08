"""The log of a run: text, numbers and curves in its folder."""

import json
import os
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.run.files import atomic_write
from common.run.folder import METRICS_FILE


class RunLog:
    """Text to the terminal and ``log.txt``, numbers to ``metrics.jsonl`` and TensorBoard.

    Only the main process writes.
    """

    def __init__(self, folder: Path, active: bool = True, resumed_at: int | None = None) -> None:
        """Opens the files.

        Args:
            resumed_at: the step from which a run resumes; lines of later steps are dropped, as they are written again.
        """
        self.active = active
        if not active:
            return
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        if resumed_at is not None:
            _drop_after(folder / METRICS_FILE, resumed_at)
        self._text = (folder / "log.txt").open("a", encoding="utf-8")
        self._metrics = (folder / METRICS_FILE).open("a", encoding="utf-8")
        self._curves = SummaryWriter(
            str(folder / "tensorboard"), purge_step=None if resumed_at is None else resumed_at + 1
        )

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


def _drop_after(path: Path, step: int) -> None:
    """Removes the lines of later steps from a metrics file, and a last line that a kill cut short."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue
    with atomic_write(path, "w") as file:
        file.writelines(kept)
