"""The scripts of a tiny experiment, called here or as users do, and their files."""

import errno
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from common.data.stamp import STAMP_FILE
from common.run import files
from common.run.errors import run_script
from common.run.files import ROOT
from common.run.lock import unlock_all
from methods.crt import eval_wsol, make_cam, train_cam, train_wsol
from methods.cti import infer_trm, train_trm
from methods.deeplab import test_deeplab, train_deeplab
from methods.dig import infer_trm as infer_dig
from methods.dig import train_diffusion
from methods.dig import train_trm as train_dig
from methods.irn import infer_irn, train_irn
from methods.pcss import infer_pcss, train_pcss
from methods.psa import infer_aff, train_aff
from methods.toco import infer_cam as infer_toco
from methods.toco import train_toco
from methods.vitseg import test_vitseg, train_vitseg
from tests.forks import run_together

SCRIPTS_OF = {  # training; inference, test or evaluation
    "cti": (train_trm, infer_trm), "pcss": (train_pcss, infer_pcss), "dig": (train_dig, infer_dig),
    "diffusion": (train_diffusion, None), "toco": (train_toco, infer_toco), "crt": (train_cam, make_cam),
    "wsol": (train_wsol, eval_wsol), "psa": (train_aff, infer_aff), "irn": (train_irn, infer_irn),
    "deeplab": (train_deeplab, test_deeplab), "vitseg": (train_vitseg, test_vitseg),
}  # fmt: skip
needs_pydensecrf = pytest.mark.skipif(
    importlib.util.find_spec("pydensecrf") is None,
    reason="pydensecrf2 is not installed (optional, compiled at installation: requirements-crf.txt)",
)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


class Scripts:
    """A method's scripts in the current folder, with its tiny experiment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, experiment: Path, method: str = "cti") -> None:
        self._patch, self._experiment = monkeypatch, experiment
        self._train, self._infer = SCRIPTS_OF[method]

    def _call(self, module: Any, arguments: tuple) -> int:
        """Calls a script in this process; the exit code. A `UserError` comes through."""
        self._patch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # a tiny network is many times faster without a team, the more so on a busy machine
        try:
            return module.main() or 0
        finally:
            torch.set_num_threads(threads)
            unlock_all()  # as the end of its process does
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def train(self, name: str, *arguments: object) -> int:
        """Trains in this process; the exit code. A `UserError` comes through."""
        return self._call(self._train, ("--name", name, "--exp", self._experiment, *arguments))

    def call(self, module: Any, name: str, *arguments: object) -> int:
        """Calls another script of the method in this process."""
        return self._call(module, ("--name", name, "--exp", self._experiment, *arguments))

    def infer(self, name: str, *arguments: object) -> int:
        """Infers in this process."""
        return self._call(self._infer, ("--name", name, "--exp", self._experiment, *arguments))

    def together(self, call: Callable[..., int], *arguments: object) -> str:
        """Calls one of the methods above in two processes, as torchrun would; their output."""
        return run_together(lambda: run_script(lambda: call(*arguments)))

    def start(self, script: str, name: str, *arguments: object, launcher: tuple = ()) -> subprocess.Popen:
        """Starts a script as a user does, in a session of its own."""
        experiment = ("--exp", self._experiment) if script.startswith("methods/") else ()
        command = [sys.executable, *launcher, ROOT / script, "--name", name, *experiment, *arguments]
        pipe, environment = subprocess.PIPE, {**os.environ, "OMP_NUM_THREADS": "1"}  # as many as in this process
        return subprocess.Popen(
            [str(part) for part in command], stdout=pipe, stderr=pipe, env=environment, text=True,
            start_new_session=True,
        )  # fmt: skip

    def run(self, script: str, name: str, *arguments: object, launcher: tuple = ()) -> tuple[int, str, str]:
        """Runs a script as a user does: exit code, output, errors."""
        process = self.start(script, name, *arguments, launcher=launcher)
        output, errors = process.communicate(timeout=240)
        return process.returncode, output, errors


def evaluation_script() -> ModuleType:
    """``evaluation.py`` as a module; its ``main`` takes a command line."""
    name = "evaluation"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def failure(capsys: pytest.CaptureFixture, function: Any, *arguments: object) -> str:
    """The one message on stderr of a script that stops with exit code 1 and without a traceback."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: function(*arguments))
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    return said.partition("error: ")[2].rstrip()


def last(name: str) -> dict[str, Any]:
    """The content of a run's last checkpoint."""
    return loaded(Path(f"experiment/{name}/ckpt/last.pth"))


def loaded(path: Path) -> Any:
    """The content of a file that a test's own run has written; `load_torch` takes ten times as long to distrust it."""
    return torch.load(path, map_location="cpu", weights_only=False)


def metrics(name: str) -> list[dict[str, Any]]:
    """The lines of a run's metrics file, without timing."""
    lines = Path(f"experiment/{name}/metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds_per_step"} for line in lines]


def contents(folder: str | Path) -> dict[str, bytes]:
    """All files of a folder but its stamp."""
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.name != STAMP_FILE}


def every_file(folder: str | Path) -> dict[str, bytes]:
    """All files of a folder and of those in it, by their paths."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def run_content(name: str) -> dict[str, Any]:
    """What two runs have in common that do the same: all but timing, the log's times and the number of workers."""
    content: dict[str, Any] = every_file(f"experiment/{name}")
    for place in content:
        if place.endswith((".pth", ".pt")):
            content[place] = loaded(Path("experiment", name, place))
    timed = ("log.txt", "config.yaml", "tensorboard/")
    kept = {place: value for place, value in content.items() if not place.startswith(timed)}
    return {**kept, "metrics.jsonl": metrics(name)}


def assert_same(first: Any, second: Any, place: str = "") -> None:
    """Nested containers are equal, tensors and arrays bitwise."""
    assert type(first) is type(second), place
    if isinstance(first, dict):
        assert first.keys() == second.keys(), place
        for key in first:
            assert_same(first[key], second[key], f"{place}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), place
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{place}[{index}]")
    elif isinstance(first, torch.Tensor | np.ndarray):
        assert first.dtype == second.dtype and bool((first == second).all()), place
    else:
        assert first == second, place


def assert_close(two: dict[str, Any], one: dict[str, Any], tolerance: tuple[float, float]) -> None:
    """The last checkpoint of two processes is that of one to float tolerance: relative and absolute for weights, a
    thousandth of the largest value of a tensor for all other state.
    """
    assert two.keys() == one.keys() and (len(two["own"]), len(one["own"])) == (2, 1)
    assert two["identity"] == one["identity"]
    relative, absolute = tolerance
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=relative, atol=absolute, msg=name)
    for part in one.keys() - {"own", "identity", "model"}:
        _assert_close(two[part], one[part], part)


def _assert_close(two: Any, one: Any, place: str) -> None:
    assert type(two) is type(one), place
    if isinstance(one, dict):
        assert two.keys() == one.keys(), place
        for key in one:
            _assert_close(two[key], one[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(two) == len(one), place
        for index, pair in enumerate(zip(two, one, strict=True)):
            _assert_close(*pair, f"{place}[{index}]")
    elif isinstance(one, torch.Tensor) and one.is_floating_point():
        difference, largest = (two - one).abs().max() if one.numel() else 0, one.abs().max() if one.numel() else 0
        assert difference <= 1e-3 * largest + 1e-7, f"{place}: {difference} of {largest}"
    elif isinstance(one, torch.Tensor):
        assert torch.equal(two, one), place
    elif isinstance(one, float):
        assert two == pytest.approx(one, rel=1e-3), place
    else:
        assert two == one, place


class _SmallDisk(io.FileIO):
    """A file on a disk that has room for so many bytes."""

    room = 0

    def write(self, data: Any) -> int:
        """Writes, or fails as a full disk does."""
        if len(data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(data)
        return super().write(data)


def fill_disk(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Leaves atomic writes so many bytes for each file."""

    def fdopen(handle: int, mode: str) -> io.IOBase:
        raw = _SmallDisk(handle, "w")
        raw.room = room
        return io.BufferedWriter(raw) if "b" in mode else io.TextIOWrapper(io.BufferedWriter(raw))

    monkeypatch.setattr(files.os, "fdopen", fdopen)


class Malicious:
    """Unpickling it would make a file named "executed" in the current folder."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch executed",)
