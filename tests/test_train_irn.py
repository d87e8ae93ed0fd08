"""IRN from seeds to masks: labels, training, random walk; interrupted anywhere, every step goes on exactly.

(Exact resume, two processes, a used folder: tests/test_training.py.)
"""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.dataset import read_mask
from common.data.masks import write_mask
from common.data.seeds import write_seed
from common.run.errors import UserError
from common.run.weights import load_torch
from methods.irn import infer_irn, make_ir_label
from methods.irn.losses import LOSS_TERMS
from tests.helpers import Scripts, assert_same, contents, last, metrics

WEIGHTS, STEPS = "001res50_irn.pth", 12


class IRNScripts(Scripts):
    """The three scripts in the current folder, with the tiny experiment and its seeds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, experiment: Path, seeds: Path) -> None:
        super().__init__(monkeypatch, experiment, "irn")
        self.seeds = seeds

    def label(self, name: str, *arguments: object) -> int:
        """Makes labels in this process."""
        return self._stage(make_ir_label, name, arguments)

    def infer(self, name: str, *arguments: object) -> int:
        """Makes masks in this process."""
        return self._stage(infer_irn, name, arguments)

    def _stage(self, module: object, name: str, arguments: tuple) -> int:
        given = () if "--seeds" in arguments else ("--seeds", self.seeds)
        return self._call(module, ("--name", name, "--exp", self._experiment, *given, *arguments))


@pytest.fixture(scope="module")
def experiment(experiments: Path) -> Path:
    """The YAML of the tiny experiment."""
    return experiments / "irn.yaml"


@pytest.fixture(scope="module")
def whole(experiment: Path, seeds: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An uninterrupted run of all three scripts, and what they print."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        scripts, said = IRNScripts(patch, experiment, seeds), []
        patch.setattr("builtins.print", lambda *values, **options: said.append(" ".join(map(str, values))))
        for script in (scripts.label, scripts.train, scripts.infer):
            assert script("whole") == 0
        folder = Path("experiment/whole").absolute()
        return SimpleNamespace(last=last("whole"), metrics=metrics("whole"), folder=folder, said="\n".join(said))


@pytest.fixture
def scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: Path, seeds: Path, whole: SimpleNamespace
) -> IRNScripts:
    """The scripts, called in a folder with a run ``x`` that has its labels."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole.folder / "ir_label", "experiment/x/ir_label")
    return IRNScripts(monkeypatch, experiment, seeds)


def assert_ends_like(name: str, whole: SimpleNamespace) -> None:
    """A run has the same last checkpoint, weights and metrics, bitwise."""
    assert_same(last(name), whole.last)
    assert_same(metrics(name), whole.metrics)
    assert_same(load_torch(f"experiment/{name}/ckpt/{WEIGHTS}"), load_torch(whole.folder / "ckpt" / WEIGHTS))


def test_labels_training_masks(whole: SimpleNamespace, shapes: Path) -> None:
    """Every step writes its files into one run folder, and says how good they are."""
    run = whole.folder
    assert {path.name for path in run.iterdir()} == {
        "ir_label", "eval_ir_label.json", "config.yaml", "log.txt", "metrics.jsonl", "tensorboard",
        "ckpt", "masks", "eval_png.json", "eval_png.csv",
    }  # fmt: skip
    assert len(contents(run / "ir_label")) == 24 and len(contents(run / "masks")) == 6
    scores = json.loads((run / "eval_ir_label.json").read_text())
    assert scores["images"] == 24 and 60 < scores["coverage"] < 100 and scores["accuracy"] > 85
    assert (
        f"{scores['coverage']:.1f}% of the pixels are labelled, {scores['accuracy']:.1f}% of them right" in whole.said
    )
    for file in (run / "masks").glob("*.png"):
        with Image.open(file) as mask:
            assert mask.mode == "P"
        truth = read_mask(shapes / "SegmentationClass" / file.name)
        assert read_mask(file).shape == truth.shape
        assert set(np.unique(read_mask(file)).tolist()) <= {0, *np.unique(truth).tolist()}
    result = json.loads((run / "eval_png.json").read_text())
    assert f"{result['best']['mIoU']:.2f} mIoU over the 6 images of 'val'" in whole.said and result["best"]["mIoU"] > 30
    log = (run / "log.txt").read_text()
    assert "24 images, no labels, 6 steps an epoch" in log and "RANDOM weights" in log and "mean displacement: " in log
    assert f"Masks: python methods/irn/infer_irn.py --name {run.name} --seeds" in log


def test_only_the_branches_are_trained(whole: SimpleNamespace, scripts: IRNScripts) -> None:
    """By SGD with the published momentum, at a poly rate from 0.1; the losses make their total."""
    assert scripts.train("x", "train.max_steps=1") == 0
    first, weights = last("x")["model"], whole.last["model"]
    for name, value in weights.items():
        assert torch.equal(value, first[name]) == name.startswith("resnet50."), name
    branches = whole.last["optimizer"]["param_groups"]
    assert [(group["lr_scale"], group["momentum"], group["weight_decay"]) for group in branches] == [
        (1.0, 1e-4, 1e-4), (10.0, 1e-4, 1e-4),
    ]  # fmt: skip
    assert [line["step"] for line in whole.metrics] == [4, 8, 12]
    for line in whole.metrics:
        assert line["lr"] == pytest.approx(0.1 * (1 - (line["step"] - 1) / STEPS) ** 0.9)
        affinity = ((line["aff_bg"] + line["aff_fg"]) / 2 + line["aff_neg"]) / 2
        assert min(line[name] for name in LOSS_TERMS) > 0
        assert line["total"] == pytest.approx(affinity + (line["dp_fg"] + line["dp_bg"]) / 2, rel=1e-4)


def test_a_run_killed_in_its_last_step_goes_on_from_the_last_checkpoint(
    scripts: IRNScripts, whole: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean displacement belongs to that step; then nothing is left to do."""

    def kill(*args: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr("methods.irn.displacement.mean_displacement", kill)
        scripts.train("x")
    assert last("x")["position"]["total_steps"] == 8 and not Path("experiment/x/ckpt", WEIGHTS).exists()
    assert scripts.train("x", "--resume") == 0
    assert_ends_like("x", whole)
    before = contents("experiment/x/ckpt")
    assert scripts.train("x", "--resume") == 0
    assert contents("experiment/x/ckpt") == before


def test_a_run_of_few_steps_has_weights_as_well(scripts: IRNScripts, whole: SimpleNamespace) -> None:
    """The mean displacement is that of the last step, wherever that is; masks need no more."""
    assert scripts.train("x", "train.max_steps=3") == 0
    weights = load_torch("experiment/x/ckpt/000res50_irn.pth")
    assert weights["mean_shift.running_mean"].abs().min() > 0
    assert not torch.equal(weights["mean_shift.running_mean"], whole.last["model"]["mean_shift.running_mean"])
    assert scripts.infer("x") == 0 and len(contents("experiment/x/masks")) == 6


def test_interrupted_labels_and_masks_go_on(
    scripts: IRNScripts, whole: SimpleNamespace, capsys: pytest.CaptureFixture
) -> None:
    """What is missing comes again, the same; other settings are refused, or start anew."""
    shutil.copytree(whole.folder / "ckpt", "experiment/x/ckpt")
    assert scripts.infer("x") == 0
    for script, part, other in (
        (scripts.label, "ir_label", "labels.certainty=0.8"), (scripts.infer, "masks", "walk.beta=3"),
    ):  # fmt: skip
        folder = Path("experiment/x", part)
        assert contents(folder) == contents(whole.folder / part)
        sorted(folder.iterdir())[1].unlink()
        capsys.readouterr()
        assert script("x") == 0
        assert f"{part}: 1 " in capsys.readouterr().out and contents(folder) == contents(whole.folder / part)
        with pytest.raises(UserError, match=f"{part} holds (masks|label maps) of another checkpoint or other settings"):
            script("x", other)
        assert script("x", other, "--overwrite") == 0 and contents(folder) != contents(whole.folder / part)


def test_overwriting_a_training_keeps_its_labels(scripts: IRNScripts, whole: SimpleNamespace) -> None:
    """A second training is refused; --overwrite deletes what the first has left, and its masks."""
    assert scripts.train("x", "train.max_steps=1") == 0 and scripts.infer("x") == 0
    with pytest.raises(UserError, match="not empty"):
        scripts.train("x")
    assert scripts.train("x", "--overwrite", "train.max_steps=2") == 0
    assert contents("experiment/x/ir_label") == contents(whole.folder / "ir_label")
    assert not Path("experiment/x/masks").exists() and last("x")["position"]["total_steps"] == 2


def test_labels_of_another_run_and_weights_of_another_origin(scripts: IRNScripts, whole: SimpleNamespace) -> None:
    """Several trainings can share labels; a released file needs no training at all, nor a run."""
    labels = whole.folder / "ir_label"
    assert scripts.train("y", "--labels", labels, "train.max_steps=1") == 0
    state = load_torch(whole.folder / "ckpt" / WEIGHTS)
    aliases = {"stage1.0.weight": state["resnet50.conv1.weight"], "disp_target": torch.zeros(1, 2, 152, 1)}
    torch.save({**state, **aliases}, "res50_irn.pth")
    assert scripts.infer("z", "--load_pretrained", "res50_irn.pth") == 0
    assert contents("experiment/z/masks") == contents(whole.folder / "masks")


def test_an_image_without_classes_is_background(scripts: IRNScripts, seeds: Path, shapes: Path) -> None:
    """In its label map and its mask."""
    shutil.copytree(seeds, "dict")
    name = next((shapes / "JPEGImages").glob("2027_*")).stem
    write_seed("dict", name, {})
    lists = ("--seeds", "dict", "train.image_list=val", "infer.image_list=val")
    assert scripts.label("y", *lists) == 0
    assert scripts.train("x", "train.max_steps=1") == 0 and scripts.infer("x", *lists) == 0
    for folder in ("experiment/y/ir_label", "experiment/x/masks"):
        assert not read_mask(Path(folder, f"{name}.png")).any()


@pytest.mark.parametrize("setting", ["runtime.precision=bf16", "train.accumulation=2"])
def test_other_settings(scripts: IRNScripts, setting: str) -> None:
    """They train and make masks; the weights stay float32."""
    assert scripts.train("x", "train.max_steps=2", setting) == 0
    assert {value.dtype for value in last("x")["model"].values() if value.is_floating_point()} == {torch.float32}
    assert scripts.infer("x", setting) == 0


def test_the_backbone_can_be_trained_too(scripts: IRNScripts, whole: SimpleNamespace) -> None:
    """From a stage on; its statistics never."""
    assert scripts.train("x", "model.frozen=3", "train.max_steps=2") == 0
    for name, value in last("x")["model"].items():
        is_early = name.startswith(tuple(f"resnet50.{part}" for part in ("conv1", "bn1", "layer1", "layer2")))
        is_statistic = name.startswith("resnet50.") and name.endswith(("running_mean", "running_var", "tracked"))
        assert torch.equal(value, whole.last["model"][name]) == (is_early or is_statistic), name


def test_a_script_that_cannot_start_leaves_nothing(scripts: IRNScripts, seeds: Path) -> None:
    """No seeds, no labels, files of another size, settings that do not fit: what is wrong, and what to do."""
    shutil.copytree(seeds, "few")
    sorted(Path("few").iterdir())[3].unlink()
    for wrong, words in (
        (("--seeds", ""), "which seeds"), (("--seeds", "nothing"), "no folder of seeds nothing"),
        (("--seeds", "few"), r"1 of the 24 images of list 'train' have no file in few"),
        (("labels.certainty=1",), "labels.certainty is 1.0; it must be between 0 and 1"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            scripts.label("y", *wrong)
    for wrong, words in (
        ((), "no label maps in experiment/.*make_ir_label.py"),
        (("views.crop_size=16",), "views.crop_size=16 has 4 cells a side, too few for pairs of loss.radius=3"),
        (("--labels", "experiment/x/ir_label", "train.displacement_list=nothing"), "no image list 'nothing'"),
    ):
        with pytest.raises(UserError, match=words):
            scripts.train("y", *wrong)
    with pytest.raises(UserError, match="no run folder"):
        scripts.infer("y")
    assert not Path("experiment/y").exists()
    write_mask(sorted(Path("experiment/x/ir_label").iterdir())[0], np.zeros((7, 9), np.uint8))
    with pytest.raises(UserError, match=r"\.png is of \(7, 9\), its image of"):
        scripts.train("x")
