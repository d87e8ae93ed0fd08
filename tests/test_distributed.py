"""Two processes under torchrun on CPUs give what one gives. (Evaluation: tests/test_evaluation.py.)"""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from common.run.errors import UserError
from common.run.processes import Processes
from common.run.random import shared_generator
from tests.helpers import TORCHRUN, Scripts, assert_same, contents, last, metrics

# A large epsilon: Adam blows gradients that are zero but for rounding (those of key biases) up to full steps.
FIXED = (
    "model.drop_path=0", "train.max_steps=4", "optim.warmup_epochs=0", "optim.lr=0.01", "optim.eps=1e-3",
    "loss.memory_size=2", "runtime.num_workers=2",
)  # fmt: skip


def assert_equal_training(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Two checkpoints have the same weights and running means of gradients, to float tolerance."""
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-4, atol=5e-5, msg=name)
    for index, state in one["optimizer"]["state"].items():
        largest = float(state["exp_avg"].abs().max())
        difference = (two["optimizer"]["state"][index]["exp_avg"] - state["exp_avg"]).abs().max()
        assert difference <= 1e-3 * largest + 1e-7


def test_the_same_global_batch_gives_the_same_weights(scripts: Scripts) -> None:
    """After four steps with all losses: weights, optimiser and memory to float tolerance, and the logged losses."""
    code, output, errors = scripts.run("methods/cti/train_trm.py", "two", *FIXED, launcher=TORCHRUN)
    assert code == 0, errors
    assert output.count("done: 4 steps") == 1 and "2 x cpu" in output
    assert scripts.train("one", *FIXED) == 0
    one, two = last("one"), last("two")
    assert one["memory"]["counts"].tolist() == two["memory"]["counts"].tolist() and len(two["own"]) == 2
    torch.testing.assert_close(two["memory"]["rows"], one["memory"]["rows"], rtol=1e-4, atol=1e-4)
    assert_equal_training(one, two)
    assert one["position"] == two["position"]
    for line, other in zip(metrics("one"), metrics("two"), strict=True):
        for name in ("total", "bg", "intra", "cross", "accuracy_cls"):
            assert other[name] == pytest.approx(line[name], rel=1e-4, abs=1e-6), name
    assert metrics("one")[-1]["cross"] > 0
    with pytest.raises(UserError, match="does not fit"):
        scripts.train("two", "--resume", "model.depth=5")
    assert scripts.train("two", "--resume", "train.max_steps=5") == 0  # by one process


def test_inference_shards_write_the_same_files(scripts: Scripts, checkpoint: Path) -> None:
    """Bitwise; the scores, too; nothing is made again when it is all there."""
    arguments = ("--load_pretrained", checkpoint, "--dict", "--vis", "infer.batch_size=2")
    code, output, errors = scripts.run("methods/cti/infer_trm.py", "two", *arguments, launcher=TORCHRUN)
    assert code == 0, errors
    assert output.count("6 seeds written, 0 were there") == 1
    assert scripts.infer("one", *arguments) == 0
    assert contents("experiment/two/dict") == contents("experiment/one/dict")
    assert contents("experiment/two/vis").keys() == contents("experiment/one/vis").keys()
    scores = [Path(f"experiment/{name}/eval_cam.csv").read_bytes() for name in ("one", "two")]
    assert scores[0] == scores[1]


# The same for PCSS: two epochs of 2 steps, a round of frequency importance after the first.
PCSS_FIXED = (
    "model.drop_path=0", "train.batch_size=12", "train.epochs=2", "optim.warmup_epochs=0", "optim.lr=0.001",
    "optim.eps=1e-3", "runtime.num_workers=1",
)  # fmt: skip


def seed_without_fixed_points() -> int:
    """A seed by which no image is its own partner in any of the 4 steps.

    Without stochastic depth the mixed map of one that is would equal the plain map but for rounding, and an L1 norm's
    gradient would be the sign of that.
    """
    draws = [(epoch, step) for epoch in range(2) for step in range(2)]
    for seed in range(1000):
        partners = [torch.randperm(12, generator=shared_generator(seed, epoch, step, 0)) for epoch, step in draws]
        if not any((each == torch.arange(12)).any() for each in partners):
            return seed
    raise AssertionError


def test_pcss_is_shared_by_two_processes(pcss_scripts: Scripts) -> None:
    """Partners in the other process, a round's losses from both: weights, optimiser, masks, totals, logged losses."""
    fixed = (*PCSS_FIXED, f"runtime.seed={seed_without_fixed_points()}")
    code, output, errors = pcss_scripts.run("methods/pcss/train_pcss.py", "two", *fixed, launcher=TORCHRUN)
    assert code == 0, errors
    assert output.count("done: 4 steps") == 1 and output.count("importance measured for 6 classes") == 1
    assert pcss_scripts.train("one", *fixed) == 0
    one, two = last("one"), last("two")
    assert one["importance"]["rounds"] == 1 and one["position"] == two["position"] and len(two["own"]) == 2
    for name in ("totals", "max_loss", "current"):
        torch.testing.assert_close(two["importance"][name], one["importance"][name], rtol=1e-4, atol=1e-4, msg=name)
    assert_equal_training(one, two)
    for line, other in zip(metrics("one"), metrics("two"), strict=True):
        assert line.keys() == other.keys()
        for name in line.keys() - {"kind", "accuracy_cls", "accuracy_pcls"}:
            assert other[name] == pytest.approx(line[name], rel=1e-3, abs=1e-6), name
    assert metrics("one")[-1]["cam_suppressed"] > 0


def test_pcss_inference_shards_write_the_same_files(pcss_scripts: Scripts) -> None:
    """Bitwise; the scores, too."""
    assert pcss_scripts.train("run", "train.max_steps=1") == 0
    arguments = ("--load_pretrained", Path("experiment/run/ckpt/000net_trm.pth").absolute(), "--dict")
    code, output, errors = pcss_scripts.run("methods/pcss/infer_pcss.py", "two", *arguments, launcher=TORCHRUN)
    assert code == 0, errors
    assert output.count("6 seeds written, 0 were there") == 1
    assert pcss_scripts.infer("one", *arguments) == 0
    assert contents("experiment/two/dict") == contents("experiment/one/dict")
    scores = [Path(f"experiment/{name}/eval_cam.csv").read_bytes() for name in ("one", "two")]
    assert scores[0] == scores[1]


# The same for DiG, the CAM losses in the second epoch. LFCA is left out: each process draws its stochastic depth.
DIG_FIXED = (
    "loss.weights=[1, 0, 0, 1, 10]", "model.drop_path=0", "train.batch_size=12", "train.epochs=2",
    "optim.warmup_epochs=0", "optim.lr=0.001", "optim.eps=1e-3", "runtime.num_workers=1",
)  # fmt: skip


# The same for ToCo: groups of two images as on the authors' GPUs, one in each process; then one group over both.
TOCO_FIXED = (
    "train.max_steps=4", "optim.eps=1e-3", "loss.seg_after=1", "train.eval_steps=4", "runtime.num_workers=1",
    "labels.high=0.6", "labels.low=0.4",
)  # fmt: skip


@pytest.mark.parametrize("group", [2, 0])
def test_toco_is_shared_by_two_processes(toco_scripts: Scripts, group: int) -> None:
    """Weights, teacher, optimiser, logged losses and validation; local crops are the same."""
    fixed = (*TOCO_FIXED, f"loss.group={group}")
    code, output, errors = toco_scripts.run("methods/toco/train_toco.py", "two", *fixed, launcher=TORCHRUN)
    assert code == 0, errors
    assert output.count("done: 4 steps") == 1 and "2 x cpu" in output
    assert toco_scripts.train("one", *fixed) == 0
    one, two = last("one"), last("two")
    assert_equal_training(one, two)
    for line, other in zip(metrics("one"), metrics("two"), strict=True):
        assert line.keys() == other.keys()
        for name in line.keys() - {"kind", "accuracy_cls", "accuracy_aux"}:
            assert other[name] == pytest.approx(line[name], rel=2e-3, abs=1e-6), name
    assert metrics("one")[3]["seg"] > 0


def test_dig_is_shared_by_two_processes(dig_scripts: Scripts) -> None:
    """Both denoise with the noise of the whole batch: weights, optimiser, logged losses."""
    code, output, errors = dig_scripts.run("methods/dig/train_trm.py", "two", *DIG_FIXED, launcher=TORCHRUN)
    assert code == 0, errors
    assert output.count("done: 4 steps") == 1 and output.count("diffusion model: ") == 1
    assert dig_scripts.train("one", *DIG_FIXED) == 0
    one, two = last("one"), last("two")
    assert one["position"] == two["position"] and len(two["own"]) == 2
    assert_equal_training(one, two)
    for line, other in zip(metrics("one"), metrics("two"), strict=True):
        assert line.keys() == other.keys()
        for name in line.keys() - {"kind", "accuracy_cls", "accuracy_pcls"}:
            assert other[name] == pytest.approx(line[name], rel=1e-3, abs=1e-6), name
    assert metrics("one")[-1]["rcam"] > 0 and metrics("one")[-1]["cls_denoised"] > 0


def test_sigterm_under_torchrun_saves_a_checkpoint(scripts: Scripts) -> None:
    """Torchrun passes it on to both processes and their workers; one process resumes."""
    longer = ("runtime.num_workers=1", "train.epochs=20", "train.save_epochs=20")
    process = scripts.start("methods/cti/train_trm.py", "x", *longer, launcher=TORCHRUN)
    log, deadline = Path("experiment/x/metrics.jsonl"), time.time() + 120
    while time.time() < deadline and process.poll() is None and not (log.is_file() and log.read_text()):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0 and "DataLoader" not in errors, errors
    steps = last("x")["position"]["total_steps"]
    assert 1 <= steps < 120 and f"after step {steps};" in Path("experiment/x/log.txt").read_text()
    assert scripts.train("x", "--resume", f"train.max_steps={steps + 1}") == 0


def test_one_process_needs_no_group() -> None:
    """Sharing and gathering are the identity."""
    alone, rows = Processes(), torch.rand(2, 3)
    alone.barrier()
    assert alone.is_main and alone.shard([1, 2, 3]) == [1, 2, 3] and alone.gather_objects("x") == ["x"]
    assert_same(alone.gather_rows(rows), rows)
    assert alone.any(True) and not alone.any(False)


def test_shards_are_every_nth() -> None:
    """Together they are the whole, each item once."""
    shards = [Processes(rank, rank, 3).shard(list(range(8))) for rank in range(3)]
    assert shards == [[0, 3, 6], [1, 4, 7], [2, 5]]
