"""The run folder ``experiment/<name>/``: everything that one run writes."""

import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from common.errors import UserError
from common.files import atomic_write

EXPERIMENT_DIR = Path("experiment")


class RunFolder:
    """Paths of one run.

    ``config.yaml`` the resolved configuration; ``log.txt``, ``metrics.jsonl`` and ``tensorboard/`` its course;
    ``ckpt/`` its
    checkpoints; ``dict/`` its seeds, ``crf/<alpha>/`` refined ones, ``vis/`` pictures; ``eval_*`` its scores.
    """

    def __init__(self, name: str) -> None:
        """Names a run; creates nothing.

        Raises:
            UserError: the name is not a plain folder name.
        """
        if not re.fullmatch(r"[\w][\w.+-]*", name):
            raise UserError(f"--name {name!r}: a run's name is one folder name of letters, digits and . _ + -")
        self.name, self.path = name, EXPERIMENT_DIR / name

    @property
    def config(self) -> Path:
        """The resolved configuration of the run."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "ckpt"

    def refuse_if_used(self, resume: bool = False, overwrite: bool = False) -> None:
        """Makes sure that a training may write here.

        Raises:
            UserError: it holds files already and neither ``resume`` nor ``overwrite`` is given, or both are.
        """
        if resume and overwrite:
            raise UserError("--resume continues a run and --overwrite starts it anew; give one of them")
        if self.path.exists() and any(self.path.iterdir()) and not (resume or overwrite):
            raise UserError(
                f"the run folder {self.path} is not empty. Choose another --name, continue it with --resume, or start "
                "anew "
                "with --overwrite (deletes what is in it)"
            )

    def create(self, overwrite: bool = False) -> None:
        """Makes the folder; ``overwrite`` deletes what is in it."""
        if overwrite and self.path.exists():
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)

    def existing(self) -> "RunFolder":
        """The folder of a run that must be there.

        Raises:
            UserError: there is none of that name; the message lists those there are.
        """
        if not self.path.is_dir():
            there = (
                sorted(path.name for path in EXPERIMENT_DIR.glob("*") if path.is_dir())
                if EXPERIMENT_DIR.is_dir()
                else []
            )
            known = f" There are: {', '.join(there)}." if there else ""
            raise UserError(
                f"no run folder {self.path} (from {Path.cwd()}).{known} A training script makes it (--name "
                f"{self.name}); for weights from elsewhere, inference takes --load_pretrained FILE"
            )
        return self


class RunLog:
    """Text to the terminal and ``log.txt``; numbers to ``metrics.jsonl`` and TensorBoard. Silent but on the main
    process.
    """

    def __init__(self, folder: Path, active: bool = True, resumed_at: int | None = None) -> None:
        """Opens the files.

        Args:
            resumed_at: the step that a resumed run goes on from; what was logged after it is dropped, as it comes
            again.
        """
        self.active = active
        if not active:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if resumed_at is not None:
            _drop_after(folder / "metrics.jsonl", resumed_at)
        self._text = (folder / "log.txt").open("a", encoding="utf-8")
        self._metrics = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._curves = SummaryWriter(
            str(folder / "tensorboard"), purge_step=None if resumed_at is None else resumed_at + 1
        )

    def say(self, text: str) -> None:
        """A line for the reader, with the time of day in the file."""
        if self.active:
            tqdm.write(text)
            self._text.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")
            self._text.flush()

    def numbers(self, step: int, values: dict[str, float], **context: Any) -> None:
        """One line of ``metrics.jsonl``: step, context (epoch, kind) and values; the values also as TensorBoard
        curves.
        """
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
    """Leaves the lines of a metrics file up to a step; a last line that a kill cut short goes, too."""
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
