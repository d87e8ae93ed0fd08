"""Two processes do what one does; of a training, after a real start under torchrun.

(Every training: tests/test_training.py; evaluation: tests/test_evaluation.py.)
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.run.processes import Processes
from tests.helpers import TORCHRUN, Scripts, assert_same, contents, last, run_content


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


def test_two_processes_go_on_exactly(scripts: Scripts, interrupt: Callable[[int], None]) -> None:
    """Bitwise, each with its own stochastic depth: stopped after a step, and compared with what was not stopped."""
    settings = ("train.batch_size=8", "train.print_freq=2", "train.validate_from=1")
    scripts.together(scripts.train, "whole", *settings)
    interrupt(2)
    with pytest.raises(AssertionError, match="after step 2;"):
        scripts.together(scripts.train, "x", *settings)
    interrupt(0)
    scripts.together(scripts.train, "x", "--resume")
    first, second = (own["random"] for own in last("x")["own"])
    assert not torch.equal(first["torch"], second["torch"])
    assert_same(run_content("x"), run_content("whole"))


def test_seeds_are_the_same_files(scripts: Scripts, checkpoint: Path) -> None:
    """Bitwise; the scores, too."""
    arguments = ("--load_pretrained", checkpoint, "--dict", "--vis", "infer.batch_size=2")
    output = scripts.together(scripts.infer, "two", *arguments)
    assert output.count("6 seeds written, 0 were there") == 1
    assert scripts.infer("one", *arguments) == 0
    assert contents("experiment/two/vis").keys() == contents("experiment/one/vis").keys()
    assert_same_files("dict", "eval_cam.csv")


def test_seeds_of_pcss_are_the_same_files(pcss_scripts: Scripts) -> None:
    """Bitwise; the scores, too."""
    assert pcss_scripts.train("run", "train.max_steps=1") == 0
    arguments = ("--load_pretrained", Path("experiment/run/ckpt/000net_trm.pth").absolute(), "--dict")
    output = pcss_scripts.together(pcss_scripts.infer, "two", *arguments)
    assert output.count("6 seeds written, 0 were there") == 1
    assert pcss_scripts.infer("one", *arguments) == 0
    assert_same_files("dict", "eval_cam.csv")


def test_masks_are_the_same_files(experiments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bitwise; the scores, too."""
    monkeypatch.chdir(tmp_path)
    scripts = Scripts(monkeypatch, experiments / "deeplab.yaml", "deeplab")
    assert scripts.train("run", "train.max_steps=1", "optim.lr=0") == 0
    arguments = ("--load_pretrained", Path("experiment/run/ckpt/checkpoint_final.pth").absolute())
    output = scripts.together(scripts.infer, "two", *arguments)
    assert output.count("6 masks written, 0 were there") == 1
    assert scripts.infer("one", *arguments) == 0
    assert_same_files("segs/val", "eval_png.csv")


def assert_same_files(folder: str, table: str) -> None:
    """Two runs have the same seeds or masks, which are not all alike, and the same table of scores."""
    one, two = (contents(f"experiment/{name}/{folder}") for name in ("one", "two"))
    assert one == two and len(set(one.values())) == 6
    assert Path("experiment/one", table).read_bytes() == Path("experiment/two", table).read_bytes()


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
