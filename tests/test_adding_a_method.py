"""The page docs/adding_a_method.md is tried: the method that it adds trains, resumes, infers seeds and is scored."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from common.data.seeds import read_seed
from common.nets.options import ViTConfig
from common.run.config import load_config
from common.run.errors import UserError
from common.run.files import ROOT
from tests.helpers import assert_same, last, metrics
from tests.toy_method import infer_toy, train_toy
from tests.toy_method.config import LossConfig, ToyConfig
from tests.toy_method.losses import Peaks, ToyStep
from tests.toy_method.model import Toy

FOLDER = ROOT / "tests" / "toy_method"
PAGE = (ROOT / "docs" / "adding_a_method.md").read_text(encoding="utf-8")
NETWORK = ViTConfig(pretrained="none", img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2)


@pytest.fixture
def experiment(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy's YAML in an empty folder, for generated images and a tiny network."""
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load((FOLDER / "toy.yaml").read_text())
    places = {"root": shapes, "classes": shapes / "classes.txt", "labels": shapes / "Annotations"}
    content["data"] = {name: str(place) for name, place in places.items()}
    content["model"] = {
        name: getattr(NETWORK, name)
        for name in ("pretrained", "img_size", "patch_size", "embed_dim", "depth", "num_heads")
    }
    content["loss"] = {"peak_from": 0}
    content["train"] = {
        "image_list": "train", "val_list": "val", "max_steps": 2, "batch_size": 4, "validate_from": 0, "print_freq": 1,
    }  # fmt: skip
    content["infer"] |= {"image_list": "val", "eval_list": "val", "num_workers": 0}
    content["runtime"] = {"num_workers": 0, "device": "cpu"}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *arguments: object) -> int:
    """Calls a script's ``main``; its exit code."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    return module.main() or 0


@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("[a-z]*.*")))
def test_the_page_quotes_each_file_whole(file: str) -> None:
    """A block of the page that begins with the file's first line is the file."""
    blocks = re.findall(r"^```(?:python|yaml)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert (FOLDER / file).read_text(encoding="utf-8") in blocks
    assert len(blocks) == len(list(FOLDER.glob("[a-z]*.*")))


def test_train_resume_infer_evaluate(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, interrupt: Callable[[int], None], one_thread: None
) -> None:
    """Two steps; the same, stopped after the first and resumed, bitwise; then seeds, and their score."""
    assert run(monkeypatch, train_toy, "--name", "whole", "--exp", experiment) == 0
    interrupt(1)
    assert run(monkeypatch, train_toy, "--name", "halves", "--exp", experiment) == 143
    assert last("halves")["position"]["total_steps"] == 1
    interrupt(0)
    assert run(monkeypatch, train_toy, "--name", "halves", "--resume") == 0
    assert_same(last("halves"), last("whole"))
    assert_same(metrics("halves"), metrics("whole"))
    lines = metrics("whole")
    assert [line["kind"] for line in lines] == ["train", "train", "validation"]
    assert bool((last("whole")["peaks"]["means"] != 0).any())
    for line in lines[:2]:
        assert line["total"] == pytest.approx(line["cls"] + 0.5 * line["peak"], rel=1e-5)
        assert 0 <= line["accuracy_cls"] <= 1

    assert run(monkeypatch, infer_toy, "--name", "halves", "--dict") == 0
    seeds = list(Path("experiment/halves/dict").glob("*.npy"))
    assert len(seeds) == 6 and all(read_seed(path) for path in seeds)
    assert 0 < json.loads(Path("experiment/halves/eval_cam.json").read_text())["best"]["mIoU"] <= 100


def test_scripts_and_configuration_import_no_torch() -> None:
    program = "import sys, tests.toy_method.train_toy, tests.toy_method.infer_toy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_the_configuration_is_checked_as_a_whole() -> None:
    assert load_config(ToyConfig, FOLDER / "toy.yaml").loss.peak_from == 2
    with pytest.raises(UserError, match=r"loss\.peak_from=9 is no epoch of a run of 4 epochs"):
        load_config(ToyConfig, None, ["loss.peak_from=9", "train.epochs=4"])
    assert load_config(ToyConfig, None, ["loss.peak_from=9", "train.epochs=4", "loss.peak=0"]).loss.peak == 0


def test_the_means_of_peaks_move_for_classes_that_are_present() -> None:
    """A tenth of the way to the mean peak of their images; an absent class keeps its mean."""
    peaks = Peaks(3)
    values = torch.tensor([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])
    labels = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    peaks.update(values, labels)
    torch.testing.assert_close(peaks.means, torch.tensor([0.2, 0.4, 0.0]))


def test_a_term_that_is_off_is_zero() -> None:
    """Before its first epoch, and without weight; the total is the rest."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32)
    labels = torch.ones(2, 3)
    for config, epoch in ((LossConfig(peak_from=1), 0), (LossConfig(peak=0.0), 5)):
        losses = ToyStep(Toy(NETWORK, 3), config, Peaks(3))(images, labels, epoch)
        assert losses["peak"] == 0 and losses["total"] == losses["cls"] > 0


def test_an_imagenet_network_is_taken_along() -> None:
    state = {**Toy(NETWORK, 3).state_dict(), "cls_token": torch.zeros(1, 1, 16), "head.weight": torch.zeros(1000, 16)}
    state["pos_embed"] = torch.arange(17.0)[None, :, None].expand(1, 17, 16)
    model = Toy(NETWORK, 3)
    coverage = model.load_imagenet(state)
    assert not coverage.wrong_shape and set(coverage.missing) <= {"head.weight", "head.bias"}
    assert model.pos_embed[0, :, 0].tolist() == list(range(1, 17))
