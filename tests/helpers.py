"""A method's tiny experiment on generated shapes: its scripts, called here or as users do, and their files."""

import errno
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from common.run import files
from common.run.errors import run_script
from common.run.files import ROOT
from common.run.weights import load_torch
from methods.crt import make_cam, train_cam
from methods.cti import infer_trm, train_trm
from methods.dig import infer_trm as infer_dig
from methods.dig import train_trm as train_dig
from methods.pcss import infer_pcss, train_pcss
from methods.toco import infer_cam as infer_toco
from methods.toco import train_toco

TINY = {
    "model": {
        "pretrained": "none", "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2,
        "drop_path": 0.3,
    },
    "optim": {"lr": 1e-3, "base_batch": 4, "warmup_epochs": 1},
    "train": {
        "image_list": "train", "val_list": "val", "epochs": 2, "batch_size": 4, "validate_from": -1, "print_freq": 1,
    },
    "infer": {"image_list": "val", "eval_list": "val", "num_workers": 0},
    "runtime": {"num_workers": 0, "device": "cpu"},
}  # fmt: skip
TINY_OF = {  # sections that a method adds or replaces
    "cti": {"loss": {"swap_idx": 1, "n_layers": 2, "memory_size": 3}},
    "pcss": {  # rounds of frequency importance after epochs 0 and 1, suppression in epochs 1 and 2
        "loss": {"mpc_idx": 1},
        "fim": {"start_epoch": 0, "interval": 1, "images_per_class": 3, "block": 8},
        "train": {**TINY["train"], "epochs": 3},
    },
    "dig": {  # the CAM losses in epoch 1; conftest.py makes the diffusion model's file
        "loss": {"cam_start_epoch": 1},
        "diffusion": {"feature_timesteps": [0, 3]},
        "unet": {"dim": 8, "dim_mults": [1, 2]},
    },
    "toco": {  # an epoch of 6 steps and 2 more; the segmentation counts from step 3, validation after 5 and 8
        "views": {"crop_size": 32, "local_size": 16, "local_crops": 3, "scale": [0.75, 1.5]},
        "model": {**TINY["model"], "drop_path": 0.0, "aux_layer": -2, "decoder_dim": 16, "proj_dim": 32},
        "loss": {"seg_after": 2, "cam_scales": [1.0, 0.5]},
        "optim": {"lr": 1e-3, "warmup_steps": 2},
        "train": {
            "image_list": "train",
            "val_list": "val",
            "max_steps": 8,
            "batch_size": 4,
            "print_freq": 1,
            "eval_steps": 5,
            "keep_steps": 4,
            "save_steps": 3,
            "val_size": 32,
        },
        "infer": {**TINY["infer"], "cam_size": 32, "segment": {"image_list": "val", "num_workers": 0}},
    },
    "crt": {  # two epochs of 6 steps, the consistency loss in the second; 4 tiles a crop
        "views": {"long_side": [32, 64], "crop_size": 48},
        "model": {
            "cnn": {"arch": "resnet18", "blocks": [1, 1, 1, 1], "pretrained": "none"},
            "deit": {**TINY["model"], "depth": 2, "drop_path": 0.0},
            "passes": 2,
        },
        "optim": {"lr": 0.01},
        "infer": {**TINY["infer"], "scales": [1.0, 0.5]},
    },
}
SCRIPTS_OF = {  # training, inference
    "cti": (train_trm, infer_trm), "pcss": (train_pcss, infer_pcss), "dig": (train_dig, infer_dig),
    "toco": (train_toco, infer_toco), "crt": (train_cam, make_cam),
}  # fmt: skip
needs_pydensecrf = pytest.mark.skipif(
    importlib.util.find_spec("pydensecrf") is None,
    reason="pydensecrf2 is not installed (optional, compiled at installation: requirements-crf.txt)",
)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def write_experiment(path: Path, data: Path, method: str = "cti", **sections: dict[str, Any]) -> Path:
    """A method's tiny experiment on a data set as `make_shapes` makes it, with more sections: a YAML file."""
    places = {"root": str(data), "classes": str(data / "classes.txt"), "labels": str(data / "Annotations")}
    content = {**TINY, **TINY_OF[method], "data": {"dataset": "voc12", **places}, **sections}
    path.write_text(yaml.safe_dump(content))
    return path


class Scripts:
    """A method's scripts in the current folder, with its tiny experiment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, experiment: Path, method: str = "cti") -> None:
        self._patch, self._experiment = monkeypatch, experiment
        self._train, self._infer = SCRIPTS_OF[method]

    def _call(self, module: Any, arguments: tuple) -> int:
        self._patch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # a tiny network is many times faster without a team, the more so on a busy machine
        try:
            return module.main() or 0
        finally:
            torch.set_num_threads(threads)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def train(self, name: str, *arguments: object) -> int:
        """Trains in this process; the exit code. A `UserError` comes through."""
        return self._call(self._train, ("--name", name, "--exp", self._experiment, *arguments))

    def infer(self, name: str, *arguments: object) -> int:
        """Infers in this process."""
        return self._call(self._infer, ("--name", name, "--exp", self._experiment, *arguments))

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
    """The one line on stderr of a script that stops with exit code 1 and without a traceback."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: function(*arguments))
    assert stop.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(lines) == 1
    return lines[0].partition("error: ")[2]


def last(name: str) -> dict[str, Any]:
    """The content of a run's last checkpoint."""
    return load_torch(f"experiment/{name}/ckpt/last.pth")


def metrics(name: str) -> list[dict[str, Any]]:
    """The lines of a run's metrics file, without timing."""
    lines = Path(f"experiment/{name}/metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds_per_step"} for line in lines]


def contents(folder: str | Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


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
