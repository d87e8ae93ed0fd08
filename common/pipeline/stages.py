"""Stages of a pipeline: scripts that run one after the other, are skipped when complete, and can be resumed."""

import contextlib
import functools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from common.data.stamp import seed_settings
from common.pipeline.table import is_table
from common.run.errors import UserError
from common.run.files import ROOT, has_content, write_json
from common.run.fingerprint import MISSING, differences, folder_digest, in_words, plain
from common.run.folder import CONFIG_FILE, LAST_FILE
from common.run.lock import hand_on
from common.run.parent import end_with_parent
from common.run.text import read_json_object


@dataclass(frozen=True)
class Stage:
    """A script, its arguments, and the files that show its progress.

    Attributes:
        title: its task in a few words, unique within a pipeline.
        script: its path in the repository.
        folder: its run folder.
        is_complete: whether all its output is there.
        source: the folder of its input files, whose stamp records their settings.
        weights: for a training the folder of its checkpoints.
        settings: all settings of its script, and digests of the images and other files that it reads.
        outputs: folders and patterns of the files that it makes.
        inputs: further folders and patterns of files that it reads.
        more: further folders of its input, as ``source``.
        is_score: whether it scores files: a score is simply made again when they have changed.
    """

    title: str
    script: str
    arguments: tuple[str, ...]
    folder: Path
    is_complete: Callable[[], bool]
    source: Path
    weights: Path | None = None
    more: tuple[Path, ...] = ()
    is_score: bool = False
    settings: dict[str, Any] = field(default_factory=dict, hash=False)
    outputs: tuple[tuple[Path, str], ...] = ()
    inputs: tuple[tuple[Path, str], ...] = ()

    def record(self) -> dict[str, Any]:
        """Everything known to the pipeline that its output depends on."""
        folders = (self.source, *self.more)
        known = {
            "command": [self.script, *self.arguments], "source": plain(seed_settings(self.source)),
            "settings": plain(self.settings),
            "files": _digests((*((folder, "*") for folder in folders), *self.inputs)),
        }  # fmt: skip
        return known | ({"more": [plain(seed_settings(folder)) for folder in self.more]} if self.more else {})

    def made(self) -> dict[str, str]:
        """Digests of the files that it has made, by folder."""
        return _digests(self.outputs)

    def is_new(self) -> bool:
        """Whether its run folder holds no training yet."""
        return not (self.folder / CONFIG_FILE).is_file()

    def restart(self, began_new: bool) -> list[str]:
        """The flag that resumes a training or starts it anew.

        Args:
            began_new: whether this pipeline started it in a run folder without a training; the files of another one are
                never deleted.
        """
        if self.weights is None:
            return []
        if (self.weights / LAST_FILE).is_file():
            return ["--resume"]
        return ["--overwrite"] if began_new and not self.is_new() else []  # stopped before its first checkpoint


def _digests(places: Sequence[tuple[Path, str]]) -> dict[str, str]:
    return {str(folder): folder_digest(folder, pattern) for folder, pattern in places}


def has_files(folder: Path, ids: Sequence[str], suffixes: Sequence[str]) -> bool:
    """Whether every image has a file of one of the suffixes in a folder; empty files do not count."""
    there = {path.name for path in folder.iterdir() if has_content(path)} if folder.is_dir() else set()
    return all(any(f"{image_id}.{suffix}" in there for suffix in suffixes) for image_id in ids)


class StageRunner:
    """Runs one command at a time, and passes SIGINT, SIGTERM and SIGHUP to it.

    A command is no member of the terminal's foreground group: Ctrl-C would reach it twice, which stops a training at
    once, without a checkpoint.

    Attributes:
        signal: the signal that came, if any.
        peak_memory: bytes that the last command needed at most in one process; 0 where that is not known.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.peak_memory = 0
        self._process: subprocess.Popen | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StageRunner":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup keeps its effect
                self._previous[number] = signal.signal(number, self._hand_on)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        if self._process is not None:
            self._process.send_signal(number)

    def run(self, command: Sequence[str]) -> int:
        """Runs a command and returns its exit code, or the signal's if the command ended well or was not started."""
        if self.signal is None:
            # A group of its own, which a signal reaches once; where this process is killed, the kernel ends it, too.
            preparation = functools.partial(end_with_parent, os.getpid()) if sys.platform == "linux" else None
            self._process = subprocess.Popen(
                list(command), start_new_session=True, preexec_fn=preparation, env=hand_on()
            )
            if self.signal is not None:  # came before there was a process
                self._process.send_signal(self.signal)
            code, self.peak_memory = _end_of(self._process)
            if self.signal is not None:  # a killed script's worker processes would wait for it forever
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGTERM)
            self._process = None
            if code:
                return 128 - code if code < 0 else code
        return 128 + self.signal if self.signal is not None else 0


def _end_of(process: subprocess.Popen) -> tuple[int, int]:
    """The exit code of a process, once it has ended, and the bytes that it or a process of its own needed at most."""
    try:
        _, status, used = os.wait4(process.pid, 0)
    except ChildProcessError:  # the handler of a signal has seen its end first
        return process.wait(), 0
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, 1024 * used.ru_maxrss


def read_state(file: Path) -> dict[str, Any]:
    """The record of a pipeline: ``stages`` by title, and the ``table`` once all are complete.

    Raises:
        UserError: the file is damaged.
    """
    if not file.is_file():
        return {"stages": {}}
    state = read_json_object(file, "the record of the pipeline")
    stages = state.setdefault("stages", {})
    if not isinstance(stages, dict) or not all(map(_is_entry, stages.values())):
        raise UserError(f"the record of the pipeline {file} is damaged; delete it: complete stages are found again")
    if not is_table(state.get("table", [])):
        raise UserError(f"the record of the pipeline {file} has a damaged table; delete it, and give the command again")
    return state


def _is_entry(entry: Any) -> bool:
    """Whether a value is a stage's entry in the record, as `carry_out` writes it."""
    command = entry.get("command", []) if isinstance(entry, dict) else None
    is_command = isinstance(command, list) and all(isinstance(part, str) for part in command)
    return is_command and isinstance(entry.get("seconds", 0.0), int | float)


def carry_out(stages: Sequence[Stage], nproc: int, state_file: Path) -> int:
    """Runs the stages that are not complete; the exit code of the first that fails, else 0.

    Args:
        nproc: processes of every script.
        state_file: records the stages, their commands, and the seconds they took.

    Raises:
        UserError: the output of a stage is of other settings, or is incomplete although its script ended well.
    """
    state = read_state(state_file)
    done = state["stages"]
    for stage in stages:
        if not stage.folder.exists():  # deleted by the user
            done.pop(stage.title, None)
    launcher = ["-m", "common.run.launch", "--standalone", "--nproc_per_node", str(nproc)] if nproc > 1 else []
    with StageRunner() as runner:
        for number, stage in enumerate(stages, 1):
            head = f"[{number}/{len(stages)}] {stage.title}"
            record = stage.record()
            before = done.get(stage.title)
            is_complete = stage.is_complete()
            changed = _changes(stage, before, record, is_complete) if before else {}
            if changed and not stage.is_score:
                raise UserError(_changed(stage, changed))
            known = before if before and not changed else {}
            began_new = known.get("began_new", stage.is_new())
            was_made = known.get("made", {})
            done[stage.title] = entry = {**record, "seconds": known.get("seconds", 0.0), "began_new": began_new}
            if is_complete and not changed:
                entry["made"] = was_made or stage.made()
                print(f"{head}: complete, skipped", flush=True)
                continue
            write_json(state_file, state)
            options = [*stage.arguments, *stage.restart(began_new)]
            print(f"{head}\n$ {shlex.join(['python', *launcher, stage.script, *options])}", flush=True)
            started = time.monotonic()
            code = runner.run([sys.executable, *launcher, str(ROOT / stage.script), *options])
            entry["seconds"] = round(entry["seconds"] + time.monotonic() - started, 1)
            if code == 0 and stage.is_complete():
                entry["made"] = stage.made()
                _take_over(done, was_made, entry["made"])
            write_json(state_file, state)
            if code:
                print(_failed(stage, code, runner.signal), file=sys.stderr, flush=True)
                return code
            if not stage.is_complete():
                raise UserError(
                    f"{stage.script} ended without an error, but its output in {stage.folder} is incomplete"
                )
    write_json(state_file, state)
    return 0


def _changes(
    stage: Stage, before: dict[str, Any], record: dict[str, Any], is_complete: bool
) -> dict[str, tuple[Any, Any]]:  # fmt: skip
    """What has changed since a stage was recorded, as old and new values; what an older record lacks is left out."""
    found = differences({key: before[key] for key in record if key in before}, record)
    made = before.get("made", {})
    if is_complete and made:  # else missing files are made again
        found |= {f"made.{key}": pair for key, pair in differences(made, stage.made()).items()}
    return {key: pair for key, pair in found.items() if pair[0] != MISSING or key.partition(".")[0] in before}


def _take_over(done: dict[str, Any], was: dict[str, str], now: dict[str, str]) -> None:
    """Lets later stages know files that a stage has completed under the same settings: missing ones were made again."""
    for entry in done.values():
        files = entry.get("files", {})
        for folder, old in was.items():
            if files.get(folder) == old:
                files[folder] = now[folder]


def _changed(stage: Stage, changed: dict[str, tuple[Any, Any]]) -> str:
    folders = [key.partition(".")[2] for key in changed if key.startswith(("files.", "made."))]
    folders += [str(stage.source)] if any(key.startswith("source") for key in changed) else []
    folders += [str(folder) for folder in stage.more] if any(key.startswith("more") for key in changed) else []
    settings = {key: pair for key, pair in changed.items() if key.startswith("settings")}
    how = []
    if "command" in changed:
        was, now = (shlex.join(command) for command in changed["command"])
        how.append(f"by another command:\n  was: {was}\n  is:  {now}\n ")
    how += [f"of other files in {folder}" for folder in dict.fromkeys(folders)]
    how += [f"with other settings: {in_words(settings)}"] if settings else []
    return (
        f"the output of the stage {stage.title!r} in {stage.folder} was made {', '.join(how)}\nUse another --name, or "
        f"delete {stage.folder} and the folders of the stages after it"
    )


def _failed(stage: Stage, code: int, number: int | None) -> str:
    if number is not None:
        return f"stopped by {signal.Signals(number).name} in the stage {stage.title!r}; the same command resumes there"
    return (
        f"error: the stage {stage.title!r} ({stage.script}) failed with exit code {code}; its message is above. The "
        "same command resumes there once the cause is removed"
    )
