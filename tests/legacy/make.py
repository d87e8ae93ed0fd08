"""Makes a run folder of every method that has none yet, as today's code writes it: ``python -m tests.legacy.make``.

An archive is never made again: it is what a user of that version has on the disk. Of large tensors the first values are
repeated, so that an archive stays small.
"""

import os
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from common.run.weights import load_torch, save_torch
from methods.irn import make_ir_label
from methods.psa import make_crf
from tests.datasets import call
from tests.experiments import write_experiment
from tests.helpers import SCRIPTS_OF, Scripts, evaluation_script

FOLDER = Path(__file__).parent
DATA = FOLDER / "data.tar.xz"  # the generated images, under data/shapes and data/birds
ORDER = ("diffusion", "cti", *(method for method in SCRIPTS_OF if method not in ("diffusion", "cti")))
KEPT = 256  # values of a tensor
SEEDS = "experiment/cti/dict"  # of which PSA and IRN make masks
SEED_METHODS = ("cti", "pcss", "dig", "toco", "crt")
SETTINGS = {  # of small networks; two steps
    "dig": ("diffusion.file=experiment/diffusion/ckpt/model-1.pt",), "diffusion": ("train.save_every=1",),
    "psa": ("crf.low_alpha=4",),
}  # fmt: skip


def experiment_of(method: str) -> Path:
    """The method's tiny experiment on the data in the current folder: a YAML file."""
    data = Path("data/birds" if method == "wsol" else "data/shapes")
    return write_experiment(Path(f"{method}.yaml"), data, method)


def make(patch: pytest.MonkeyPatch, method: str) -> None:
    """Trains two steps in the current folder, and infers: ``experiment/<method>``."""
    scripts = Scripts(patch, experiment_of(method), method)
    if method in ("psa", "irn"):
        before = make_crf if method == "psa" else make_ir_label
        cti = Scripts(patch, experiment_of("cti"))
        assert cti.infer("cti", "--dict", "--dict_dir", "of_train", "infer.image_list=train", "infer.eval_list=") == 0
        assert scripts.call(before, method, "--seeds", "experiment/cti/of_train") == 0
    assert scripts.train(method, "train.max_steps=2", *SETTINGS.get(method, ())) == 0
    for path in sorted(Path("experiment", method, "ckpt").iterdir()):
        save_torch(path, thinned(load_torch(path)))
    infer(scripts, method)
    score(method)


def infer(scripts: Scripts, method: str) -> None:
    """The inference of a method, in each format of its files."""
    if method in SEED_METHODS:
        assert scripts.infer(method, "--dict") == 0
        assert scripts.infer(method, "--dict", "--dict_dir", "dict_npz", "infer.format=npz") == 0
    elif method in ("psa", "irn"):
        assert scripts.infer(method, "--seeds", SEEDS) == 0
    elif SCRIPTS_OF[method][1]:
        assert scripts.infer(method) == 0


def predictions(method: str) -> list[tuple[str, str]]:
    """Folders of a run that can be scored, with the task of ``evaluation.py``."""
    folders = (("dict", "cam"), ("dict_npz", "cam"), ("masks", "png"), ("segs/val", "png"))
    return [(folder, task) for folder, task in folders if Path("experiment", method, folder).is_dir()]


def score(method: str, prefix: str = "score") -> None:
    """Scores seeds and masks: ``PREFIX_FOLDER.json`` in the run folder."""
    for folder, task in predictions(method):
        name = f"{prefix}_{folder.replace('/', '_')}"
        arguments = ["--name", method, "--task", task, "--dict_dir", folder, "--list", "val", "--out", name]
        evaluation_script().main([*arguments, "--num_workers", "1"])


def thinned(value: Any) -> Any:
    """A checkpoint whose large tensors repeat their first values."""
    if isinstance(value, dict):
        return {key: thinned(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(thinned(part) for part in value)
    if isinstance(value, torch.Tensor) and value.numel() > KEPT:
        return value.flatten()[:KEPT].repeat(value.numel() // KEPT + 1)[: value.numel()].view(value.shape)
    return value


def pack(folder: Path, archive: Path) -> None:
    """Packs a folder of the current one, without TensorBoard's files."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        packed.add(folder, filter=lambda member: None if member.name.endswith("tensorboard") else member)


def unpack(*methods: str) -> None:
    """Unpacks the data and runs into the current folder."""
    for archive in (DATA, *(FOLDER / f"{method}.tar.xz" for method in methods)):
        with tarfile.open(archive) as packed:
            packed.extractall(filter="data")


def main() -> int:
    """Makes what is missing. Returns the exit code."""
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        if not DATA.is_file():
            sizes = ("--size", 48, "--workers", 1)
            assert call(patch, "make_shapes", "--root", "data/shapes", "--train", 8, "--val", 4, *sizes) == 0
            assert call(patch, "make_cub_shapes", "--root", "data/birds", "--train", 24, "--test", 12, *sizes) == 0
            pack(Path("data"), DATA)
        done = [method for method in ORDER if (FOLDER / f"{method}.tar.xz").is_file()]
        unpack(*done)
        for method in ORDER:
            if method not in done:
                make(patch, method)
                pack(Path("experiment", method), FOLDER / f"{method}.tar.xz")
                print(f"{method}: {(FOLDER / f'{method}.tar.xz').stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
