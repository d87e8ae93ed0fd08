"""CTI from training to score, and what stops a training with everything kept.

(Exact resume, two processes, a used folder: tests/test_training.py.)
"""

import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from common.data.seeds import read_seed
from common.run.errors import UserError
from common.run.files import ROOT
from common.run.processes import Processes
from common.run.weights import load_torch, save_torch
from common.train.checkpoint import Checkpoints
from common.train.course import Position
from common.train.watch import LossWatch, label_accuracy
from tests.helpers import Scripts, assert_same, contents, evaluation_script, failure, last, metrics


def test_train_infer_evaluate(scripts: Scripts, capsys: pytest.CaptureFixture) -> None:
    """The three commands of the README: two steps, six seeds, one score."""
    assert scripts.train("x", "train.max_steps=2", "train.validate_from=0") == 0
    output, run = capsys.readouterr().out, Path("experiment/x")
    assert "RANDOM weights" in output and "done: 2 steps" in output and "mIoU" in output
    assert {path.name for path in run.iterdir()} == {"config.yaml", "log.txt", "metrics.jsonl", "tensorboard", "ckpt"}
    assert set(contents(run / "ckpt")) == {"000net_trm.pth", "best.pth", "last.pth", "classes.json"}
    lines = metrics("x")
    assert [(line["step"], line["kind"]) for line in lines] == [(1, "train"), (2, "train"), (2, "validation")]
    terms = {"total", "cls", "pcls", "cls_view2", "pcls_view2", "bg", "intra", "cross", "lr"}
    assert terms <= lines[0].keys() and "done: 2 steps" in (run / "log.txt").read_text()

    assert scripts.infer("x", "--load_epo", 0, "--dict") == 0
    output = capsys.readouterr().out
    assert "6 seeds written, 0 were there" in output and "mIoU at threshold" in output
    seeds = {path.stem: read_seed(path) for path in (run / "dict").glob("*.npy")}
    assert len(seeds) == 6 and all(seed for seed in seeds.values())
    assert (run / "eval_cam.json").is_file()

    evaluation_script().main(["--name", "x", "--dict_dir", "dict", "--list", "val", "--out", "again"])
    assert (run / "again.csv").read_bytes() == (run / "eval_cam.csv").read_bytes()


def test_a_line_of_the_log_is_the_mean_of_its_steps(scripts: Scripts) -> None:
    """Over the ends of epochs, too: lines of 5, 5 and 2 steps in two epochs of 6, which add up to all steps."""
    for name, every in (("each", 1), ("some", 5)):
        assert scripts.train(name, f"train.print_freq={every}") == 0
    each, some = metrics("each"), metrics("some")
    assert [(line["step"], line["steps"], line["epoch"]) for line in some] == [(5, 5, 0), (10, 5, 1), (12, 2, 1)]
    assert [line["steps"] for line in each] == [1] * 12
    for line in some:
        part = each[line["step"] - line["steps"] : line["step"]]
        for term in ("total", "cls", "bg", "intra", "accuracy_cls"):
            assert line[term] == pytest.approx(np.mean([other[term] for other in part]), rel=1e-5), term


def test_a_run_ends_at_its_step_limit(scripts: Scripts) -> None:
    """Also in the middle of an epoch; resumed, it does what a higher limit leaves, and nothing more when it is done."""
    assert scripts.train("x", "train.max_steps=2") == 0
    assert scripts.train("x", "--resume", "train.max_steps=8") == 0
    before = contents("experiment/x/ckpt")
    assert set(before) == {"000net_trm.pth", "001net_trm.pth", "last.pth"}
    assert last("x")["position"]["total_steps"] == 8 == len(metrics("x"))
    assert scripts.train("x", "--resume") == 0
    assert contents("experiment/x/ckpt") == before


def test_sigterm_to_the_whole_job_saves_a_checkpoint(scripts: Scripts) -> None:
    """As schedulers and torchrun send it, to workers too: exit code 143, and the resumed run ends like another."""
    longer = ("train.print_freq=2", "train.epochs=6", "train.save_epochs=6")
    process = scripts.start("methods/cti/train_trm.py", "x", *longer, "runtime.num_workers=2")
    log, deadline = Path("experiment/x/metrics.jsonl"), time.time() + 120
    while time.time() < deadline and process.poll() is None and not (log.is_file() and log.read_text()):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in errors, errors
    steps = last("x")["position"]["total_steps"]
    assert 2 <= steps < 36 and f"signal 15 after step {steps};" in Path("experiment/x/log.txt").read_text()
    assert scripts.train("x", "--resume", "runtime.num_workers=0") == scripts.train("y", *longer) == 0
    assert_same(last("x"), last("y"))
    assert_same(metrics("x"), metrics("y"))


def test_a_loss_that_is_not_finite_stops_the_run(scripts: Scripts, capsys: pytest.CaptureFixture) -> None:
    """It names terms and images; the checkpoint from before is kept, and the metrics file holds numbers only."""
    assert scripts.train("x", "train.max_steps=4") == 0
    before = contents("experiment/x/ckpt")
    ruinous = ("optim.lr=1e15", "optim.warmup_epochs=0")
    message = failure(capsys, scripts.train, "x", "--resume", "train.max_steps=0", *ruinous)
    assert re.search(r"not finite: total, cls, .* in a batch of the images 2026_0000\d\d, ", message), message
    assert contents("experiment/x/ckpt") == before
    assert all(value == value for line in metrics("x") for value in line.values())
    assert scripts.train("x", "--resume", "optim.lr=1e-3") == 0
    assert [line["step"] for line in metrics("x")] == list(range(1, 13))


def test_terms_and_images_are_named() -> None:
    """The first batch with a term that is not finite, one step later or when asked."""
    watch = LossWatch(["total", "bg"], ["a", "b", "c"])
    good, bad = ({"total": torch.tensor(1.0), "bg": torch.tensor(value)} for value in (2.0, float("nan")))
    watch.add(good, torch.tensor([0, 1]))
    watch.add(bad, torch.tensor([2, 0]))
    with pytest.raises(UserError, match="not finite: bg, in a batch of the images c, a"):
        watch.averages(Processes())
    watch = LossWatch(["total", "bg"], ["a", "b", "c"])
    watch.add(good, torch.tensor([0, 1]))
    watch.add({"total": torch.tensor(3.0), "bg": torch.tensor(0.0)}, torch.tensor([2]))
    assert watch.averages(Processes()) == {"total": 2.0, "bg": 1.0}


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """A step may spoil them without a loss that shows it yet."""
    model = torch.nn.Linear(2, 2)
    checkpoints = Checkpoints(tmp_path, model, {}, {}, Processes(), {})
    checkpoints.save_last(Position())
    before = contents(tmp_path)
    with torch.no_grad():
        model.weight[0, 1] = float("inf")
    for save in (
        lambda: checkpoints.save_last(Position()),
        lambda: checkpoints.save_weights("000net_trm.pth"),
        checkpoints.save_best,
    ):
        with pytest.raises(UserError, match="weights are not finite after the last step: weight"):
            save()
    assert contents(tmp_path) == before


def test_a_checkpoint_of_another_format_is_named(tmp_path: Path) -> None:
    """A newer version, a part that is missing or was renamed; a file of before there were versions is of the first."""
    checkpoints = Checkpoints(tmp_path, torch.nn.Linear(2, 2), {}, {}, Processes(), {})
    checkpoints.save_last(Position())
    content = load_torch(checkpoints.last)
    without = {key: value for key, value in content.items() if key != "format"}
    save_torch(checkpoints.last, without)
    assert checkpoints.resume() == Position()
    renamed = {"weights" if key == "model" else key: value for key, value in content.items()}
    for changed, words in (
        ({**content, "format": 2}, "is a checkpoint of format 2, .* reads format 1: resume it with the version"),
        (renamed, "does not fit this run: it lacks model and it has weights$"),
    ):
        save_torch(checkpoints.last, changed)
        with pytest.raises(UserError, match=words):
            checkpoints.resume()


def test_nothing_to_resume(scripts: Scripts) -> None:
    """No folder, no configuration, no checkpoint, a damaged one."""
    with pytest.raises(UserError, match="no run folder experiment/x"):
        scripts.train("x", "--resume")
    assert scripts.train("x", "train.max_steps=1") == 0
    file = Path("experiment/x/ckpt/last.pth")
    content = file.read_bytes()
    for damaged in (content[: len(content) // 2], b""):
        file.write_bytes(damaged)
        reason = r"last\.pth cannot be read as weights: it is (a part of a file|empty).*again"
        with pytest.raises(UserError, match=reason):
            scripts.train("x", "--resume")
    torch.save({"model": {}}, file)
    with pytest.raises(UserError, match=r"last\.pth does not fit this run"):
        scripts.train("x", "--resume")
    shutil.rmtree("experiment/x/ckpt")
    with pytest.raises(UserError, match=r"nothing to resume: no .*last\.pth"):
        scripts.train("x", "--resume")
    Path("experiment/x/config.yaml").unlink()
    with pytest.raises(UserError, match=r"nothing to resume: no .*config\.yaml"):
        scripts.train("x", "--resume")


def test_accumulation_gives_the_same_step(scripts: Scripts) -> None:
    """Two micro-batches of 2 or one of 4: nearly the same weights, without the losses that look beyond an image."""
    fixed = (
        "loss.weights=[0, 0, 0]", "model.drop_path=0", "train.max_steps=3", "optim.warmup_epochs=0", "optim.eps=1e-3",
    )  # fmt: skip
    for accumulation in (1, 2):
        assert scripts.train(str(accumulation), *fixed, f"train.accumulation={accumulation}") == 0
    one, two = last("1"), last("2")
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-4, atol=1e-6, msg=name)
    for line, other in zip(metrics("1"), metrics("2"), strict=True):
        assert all(other[name] == pytest.approx(line[name], rel=1e-3) for name in ("total", "cls", "pcls_view2", "lr"))
    with pytest.raises(UserError, match="does not divide by 1 process"):
        scripts.train("3", *fixed, "train.accumulation=3")


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_other_number_formats(scripts: Scripts, precision: str) -> None:
    """They run on a CPU; the weights stay float32."""
    assert scripts.train("x", "train.max_steps=5", f"runtime.precision={precision}") == 0
    assert {value.dtype for value in last("x")["model"].values()} == {torch.float32}
    assert metrics("x")[-1]["cross"] > 0


def test_checkpoints_are_kept_as_configured(scripts: Scripts) -> None:
    """Every second epoch and the last one."""
    assert scripts.train("x", "train.epochs=3", "train.save_epochs=2", "train.batch_size=24") == 0
    assert set(contents("experiment/x/ckpt")) == {"001net_trm.pth", "002net_trm.pth", "last.pth"}


def test_accuracy_is_the_share_of_labels_among_the_largest_logits() -> None:
    """Images without a label do not count."""
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [0.0, 0.0, 1.0]])
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert label_accuracy(logits, labels) == 0.25
    assert label_accuracy(logits, torch.zeros(3, 3)) == 0


def test_repository_is_found_from_anywhere(scripts: Scripts) -> None:
    """Configurations ship with the code; runs are written where the user is."""
    assert Path.cwd() != ROOT and not Path("configs").exists()
