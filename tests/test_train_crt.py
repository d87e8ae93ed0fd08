"""CRT's classifier in training. (Exact resume, two processes: tests/test_training.py.)"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.run.errors import UserError
from tests.helpers import Scripts, last, metrics

STEPS = 12
VALIDATED = ("train.validate_from=1",)  # after the second of two epochs
FIXED = ("cnn.backbone.conv1", "cnn.backbone.bn1", "cnn.backbone.layer1", "cnn.backbone.layer2")


@pytest.fixture(scope="module")
def whole(crt_experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An uninterrupted run: its last checkpoint, metrics and folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        assert Scripts(patch, crt_experiment, "crt").train("whole", *VALIDATED) == 0
        return SimpleNamespace(last=last("whole"), metrics=metrics("whole"), folder=Path("experiment/whole").absolute())


def test_the_losses_of_a_run(whole: SimpleNamespace) -> None:
    """The consistency counts from the second epoch on; the rate is a poly schedule over all steps; one validation."""
    *lines, validation = whole.metrics
    assert [line["kind"] for line in whole.metrics] == [*["train"] * STEPS, "validation"]
    for step, line in enumerate(lines):
        assert line["total"] == pytest.approx(
            line["cls_cnn"] + line["cls_deit"] + 0.1 * line["consistency"], rel=1e-5
        ) and (line["consistency"] > 0) == (step >= STEPS // 2)
        assert {"accuracy_cnn", "accuracy_deit"} <= line.keys()
        assert line["lr"] == pytest.approx(0.01 * (1 - step / STEPS) ** 0.9)
    assert 0 < validation["val_mIoU"] < 100 and 0 <= validation["val_threshold"] < 1
    log = (whole.folder / "log.txt").read_text()
    assert log.count("RANDOM weights") == 1 and "epoch 1: seeds of 'val': " in log
    assert f"Seeds: python methods/crt/make_cam.py --name {whole.folder.name} --dict" in log


def test_what_is_trained(crt_scripts: Scripts, whole: SimpleNamespace) -> None:
    """All of both networks, but the CNN's first stages and every statistic; by SGD with the published momentum."""
    assert crt_scripts.train("x", "train.max_steps=1") == 0
    first, weights = last("x")["model"], whole.last["model"]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    for name, value in weights.items():
        is_fixed = name.startswith(FIXED) or name.endswith(statistics)
        assert torch.equal(value, first[name]) == is_fixed, name
    groups = whole.last["optimizer"]["param_groups"]
    assert [(group["lr_scale"], group["momentum"], group["weight_decay"]) for group in groups] == [
        (1.0, 1e-4, 1e-4), (10.0, 1e-4, 1e-4), (1.0, 1e-4, 1e-4), (10.0, 1e-4, 1e-4),
    ]  # fmt: skip
    momentum = ("optim.momentum=0.9", "train.max_steps=2")
    assert crt_scripts.train("y", *momentum) == 0
    assert {group["momentum"] for group in last("y")["optimizer"]["param_groups"]} == {0.9}


def test_the_validation_is_the_score_of_the_seeds(
    crt_scripts: Scripts, whole: SimpleNamespace, capsys: pytest.CaptureFixture
) -> None:
    """Those of the weights that it has kept as the best."""
    file = whole.folder / "ckpt" / "best.pth"
    assert crt_scripts.infer("x", "--load_pretrained", file) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if " best: " in line)
    expected = whole.metrics[-1]
    assert f"{expected['val_mIoU']:.2f} mIoU at threshold {expected['val_threshold']:.2f}" in line


def test_a_crop_that_cannot_be_tiled(crt_scripts: Scripts) -> None:
    """One line that names the keys; no run is begun."""
    with pytest.raises(UserError, match=r"views\.crop_size=56 cannot be cut into tiles of model\.deit\.img_size=32"):
        crt_scripts.train("x", "views.crop_size=56")
    assert not Path("experiment/x").exists()


@pytest.mark.parametrize("setting", ["runtime.precision=bf16", "model.passes=1"])
def test_other_settings(crt_scripts: Scripts, setting: str) -> None:
    """They train; the weights stay float32, the losses finite."""
    assert crt_scripts.train("x", "train.max_steps=2", "loss.consistency_from=0", setting) == 0
    assert {value.dtype for value in last("x")["model"].values() if value.is_floating_point()} == {torch.float32}
    assert np.isfinite([line["total"] for line in metrics("x")]).all()
