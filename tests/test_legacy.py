"""Run folders of earlier versions are loaded, resumed and scored for ever: ``tests/legacy``."""

import json
import shutil
from pathlib import Path

import pytest

from common.run.errors import UserError
from common.run.weights import load_torch, save_torch
from common.train.checkpoint import FORMAT
from tests.helpers import SCRIPTS_OF, Scripts, last
from tests.legacy.make import FOLDER, SETTINGS, infer, predictions, score, unpack

MEGABYTE = 1e6


def scripts_of(method: str, patch: pytest.MonkeyPatch, folder: Path) -> Scripts:
    """The scripts of a method beside its unpacked run, whose own configuration they read."""
    patch.chdir(folder)
    unpack(method, *{"dig": ("diffusion",), "psa": ("cti",), "irn": ("cti",)}.get(method, ()))
    return Scripts(patch, Path("experiment", method, "config.yaml"), method)


@pytest.mark.parametrize("method", SCRIPTS_OF)
def test_a_run_of_an_earlier_version(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds and masks have their score, the weights infer, the training goes on."""
    archive = FOLDER / f"{method}.tar.xz"
    assert archive.stat().st_size < MEGABYTE / 2, "no run of this method: python -m tests.legacy.make"
    scripts = scripts_of(method, monkeypatch, tmp_path)
    score(method, "again")
    for folder, _ in predictions(method):
        before, now = (
            json.loads(Path("experiment", method, f"{prefix}_{folder.replace('/', '_')}.json").read_text())
            for prefix in ("score", "again")
        )
        assert now["best"]["mIoU"] == pytest.approx(before["best"]["mIoU"], abs=1e-9), folder
        shutil.rmtree(Path("experiment", method, folder))
    infer(scripts, method)
    assert last(method)["format"] <= FORMAT
    assert scripts.train(method, "--resume", "train.max_steps=3", *SETTINGS.get(method, ())) == 0
    assert last(method)["position"]["total_steps"] == 3


def test_a_renamed_key_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the configuration, of a checkpoint's parts, of the weights: named, and nothing is changed."""
    scripts = scripts_of("cti", monkeypatch, tmp_path)
    path, config = Path("experiment/cti/ckpt/last.pth"), Path("experiment/cti/config.yaml")
    content = load_torch(path)
    weights = dict(content["model"])
    weights["old_name"] = weights.pop("bg_token")
    parts = {**content, "tokens": content["memory"]}
    parts.pop("memory")
    for changed, words in (
        ({**content, "model": weights}, "does not fit this run.*(bg_token|old_name)"),
        (parts, "it lacks memory and it has tokens"), ({**content, "format": FORMAT + 1}, f"format {FORMAT + 1}"),
    ):  # fmt: skip
        save_torch(path, changed)
        before = path.read_bytes()
        with pytest.raises(UserError, match=f"(?s){words}"):
            scripts.train("cti", "--resume", "train.max_steps=3")
        assert path.read_bytes() == before
    config.write_text(config.read_text().replace("memory_size:", "memory_length:"))
    with pytest.raises(UserError, match=r"memory_length"):
        scripts.train("cti", "--resume", "train.max_steps=3")
