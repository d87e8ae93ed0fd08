"""DiG's classifier from training to score, guided by a diffusion model.

(Exact resume, two processes, a used folder: tests/test_training.py.)
"""

import shutil
from pathlib import Path

import pytest
import torch

from common.data.seeds import read_seed
from common.run.errors import UserError
from common.run.weights import load_torch
from methods.dig.losses import LOSS_TERMS
from methods.dig.model import TRAINING_ONLY
from tests.helpers import Scripts, contents, evaluation_script, last, metrics

CAM_LOSSES = ("cam", "rcam")
PLAIN = ("--W", 1, 0, 0, 0, 0)


def has_lfca(state: dict[str, torch.Tensor]) -> bool:
    """Whether weights hold all parts that only serve training; never just some of them."""
    found = [any(name.startswith(part) for name in state) for part in TRAINING_ONLY]
    assert len(set(found)) == 1
    return found[0]


def test_train_infer_evaluate(
    dig_scripts: Scripts, diffusion_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Five losses, six seeds, one score; seeds are made from the whole checkpoint without diffusion model or LFCA."""
    own = Path(shutil.copy(diffusion_file, "own.pt"))
    content, setting = own.read_bytes(), f"diffusion.file={own}"
    assert dig_scripts.train("x", setting, "train.validate_from=1") == 0
    output, run = capsys.readouterr().out, Path("experiment/x")
    assert "RANDOM weights" in output and "done: 12 steps" in output and "methods/dig/infer_trm.py --name x" in output
    assert "diffusion model: own.pt (step 7, version wsss 1)" in (run / "log.txt").read_text() and "mIoU" in output
    assert {path.name for path in run.iterdir()} == {"config.yaml", "log.txt", "metrics.jsonl", "tensorboard", "ckpt"}
    assert set(contents(run / "ckpt")) == {
        "000net_trm.pth", "001net_trm.pth", "best.pth", "last.pth", "classes.json",
    }  # fmt: skip
    assert own.read_bytes() == content
    lines = metrics("x")
    assert [line["kind"] for line in lines] == ["train"] * 12 + ["validation"]
    for line in lines[:-1]:
        assert {"total", *LOSS_TERMS, "accuracy_cls", "accuracy_pcls", "lr"} <= line.keys()
        assert all((line[name] > 0) == (line["epoch"] > 0 or name not in CAM_LOSSES) for name in LOSS_TERMS)
        terms = sum(weight * line[name] for name, weight in zip(LOSS_TERMS, (1, 1, 1, 1, 10), strict=True))
        assert line["total"] == pytest.approx(terms, rel=1e-5)

    own.unlink()
    assert has_lfca(load_torch(run / "ckpt" / "001net_trm.pth"))
    for part in ("methods.dig.model.LFCA", "methods.dig.guide.load_diffusion"):
        monkeypatch.setattr(part, None)
    assert dig_scripts.infer("x", "--load_epo", 1, "--dict", setting) == 0
    output = capsys.readouterr().out
    assert "6 seeds written, 0 were there" in output and "mIoU at threshold" in output
    seeds = {path.stem: read_seed(path) for path in (run / "dict").glob("*.npy")}
    assert len(seeds) == 6 and all(seed for seed in seeds.values())

    evaluation_script().main(["--name", "x", "--dict_dir", "dict", "--list", "val", "--out", "again"])
    assert (run / "again.csv").read_bytes() == (run / "eval_cam.csv").read_bytes()
    assert "IoU_reference_range" in (run / "again.csv").read_text() and "early_stop" in (run / "again.json").read_text()


def test_without_diffusion_losses_no_diffusion_model_is_needed(dig_scripts: Scripts) -> None:
    """The file need not exist; the checkpoint has no LFCA, and makes seeds as well."""
    assert dig_scripts.train("x", *PLAIN, "diffusion.file=nowhere.pt") == 0
    assert "diffusion model: none: no loss needs one" in Path("experiment/x/log.txt").read_text()
    assert not has_lfca(last("x")["model"]) and not has_lfca(load_torch("experiment/x/ckpt/001net_trm.pth"))
    assert all((line[name] > 0) == (name == "cls") for line in metrics("x") for name in LOSS_TERMS)
    assert dig_scripts.infer("x", "--load_epo", 1, "--dict") == 0
    assert len(contents("experiment/x/dict")) == 6


@pytest.mark.parametrize("term", range(1, 5))
def test_a_diffusion_model_that_is_not_there(dig_scripts: Scripts, term: int) -> None:
    """Any other loss needs it: the three ways out are named, and nothing is written."""
    weights = [1, *(int(index == term) for index in range(1, 5))]
    with pytest.raises(UserError) as error:
        dig_scripts.train("x", "--W", *weights, "diffusion.file=nowhere.pt")
    message = str(error.value)
    assert "no diffusion model at nowhere.pt" in message
    for way in ("model-140-pascal.pt, into pretrained/", "methods/dig/train_diffusion.py", "loss.weights=[1,0,0,0,0]"):
        assert way in message
    assert not Path("experiment").exists()


def test_a_diffusion_model_that_does_not_fit(dig_scripts: Scripts) -> None:
    """Image sizes that the U-Net cannot take, a file of another size: what to change is named, nothing is written."""
    for wrong, words in (
        (("model.img_size=40", "unet.dim_mults=[1, 1, 1, 1, 1]"), r"model\.img_size=40 does not suit.*multiples of 16"),
        (("unet.dim=16",), r"dim=8, dim_mults=\[1, 2\], but .* dim=16"),
    ):
        with pytest.raises(UserError, match=words):
            dig_scripts.train("x", *wrong)
        assert not Path("experiment").exists()
    assert (
        dig_scripts.train("x", *PLAIN, "model.img_size=40", "unet.dim_mults=[1, 1, 1, 1, 1]", "train.max_steps=1") == 0
    )


@pytest.mark.parametrize(
    "settings",
    [
        ("runtime.precision=bf16",), ("loss.merge_passes=true",), ("diffusion.max_rows=1", "train.accumulation=2"),
        ("views.auto_augment=rand-m9-mstd0.5-inc1", "diffusion.feature_timesteps=[100]"),
    ],
    ids=lambda settings: settings[0],
)  # fmt: skip
def test_other_settings(dig_scripts: Scripts, settings: tuple[str, ...]) -> None:
    """They run with all losses; the weights stay float32."""
    assert dig_scripts.train("x", "train.batch_size=12", *settings) == 0
    assert {value.dtype for value in last("x")["model"].values()} == {torch.float32}
    assert all(metrics("x")[-1][name] > 0 for name in LOSS_TERMS)


def test_a_frozen_lfca_keeps_its_weights(dig_scripts: Scripts) -> None:
    """W[1] = 0: the diffusion CAM is made by random weights, which the optimiser leaves alone."""
    states = []
    for name, steps in (("x", 3), ("y", 8)):
        assert dig_scripts.train(name, "--W", 1, 0, 1, 0, 0, f"train.max_steps={steps}") == 0
        states.append(last(name)["model"])
    assert has_lfca(states[0]) and metrics("y")[-1]["cam"] > 0 == metrics("y")[-1]["pred_diff"]
    for name, value in states[0].items():
        is_frozen = name.startswith((*TRAINING_ONLY, "norm."))  # the final norm is never used
        assert torch.equal(states[1][name], value) == is_frozen, name
