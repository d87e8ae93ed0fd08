"""PCSS from training to score, with rounds of frequency importance; interrupted anywhere, a run goes on exactly."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.seeds import read_seed
from common.run.errors import UserError
from common.run.weights import load_torch
from common.train import trainer
from common.train.watch import ProgressLine
from methods.pcss import fim
from methods.pcss.importance import FrequencyImportance
from methods.pcss.losses import LOSS_TERMS
from tests.helpers import Scripts, assert_same, contents, evaluation_script, last, metrics

# Three epochs of 3 steps, rounds after the first two, validation after the last two; everything has a state.
EXACT = ("train.batch_size=8", "train.print_freq=2", "train.validate_from=1")
STEPS, EPOCHS = 3, 3


def draw_quickly(path: Path, maps: np.ndarray, names: list[str], title: str) -> None:
    """Stands in for `heat_maps`, which takes longer than all the rest of a tiny run: writes the numbers."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{title} {names}\n{maps.tolist()}")


@pytest.fixture(scope="module")
def whole(pcss_experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An uninterrupted run of `EXACT`: its last checkpoint, metrics, folder, and the steps of its two rounds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        rounds = []
        add = FrequencyImportance.add
        patch.setattr(
            FrequencyImportance, "add", lambda self, *args: (rounds.append(self.round_epoch), add(self, *args))
        )
        patch.setattr(fim, "heat_maps", draw_quickly)
        assert Scripts(patch, pcss_experiment, "pcss").train("whole", *EXACT, "runtime.num_workers=2") == 0
        folder = Path("experiment/whole").absolute()
        counts = rounds.count(0), rounds.count(1)
        return SimpleNamespace(last=last("whole"), metrics=metrics("whole"), folder=folder, rounds=counts)


def assert_ends_like(name: str, whole: SimpleNamespace) -> None:
    """A run has the same last checkpoint, epoch files, metrics and pictures, bitwise."""
    assert_same(last(name), whole.last)
    assert_same(metrics(name), whole.metrics)
    for file in ("000net_trm.pth", "001net_trm.pth", "002net_trm.pth", "best.pth"):
        assert_same(load_torch(f"experiment/{name}/ckpt/{file}"), load_torch(whole.folder / "ckpt" / file), file)
    assert contents(f"experiment/{name}/importance") == contents(whole.folder / "importance")


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Counts what is ``done``; this process gets SIGTERM when a piece is done ``at`` which it is set to."""
    state = SimpleNamespace(done=dict.fromkeys(("step", "add", "draw", "validate"), 0), at={})

    def count(owner: Any, name: str, piece: str) -> None:
        function = getattr(owner, name)

        def call(*args: Any) -> Any:
            result = function(*args)
            state.done[piece] += 1
            if state.done[piece] == state.at.get(piece):
                os.kill(os.getpid(), signal.SIGTERM)
            return result

        monkeypatch.setattr(owner, name, call)

    monkeypatch.setattr(fim, "heat_maps", draw_quickly)
    count(ProgressLine, "advance", "step")
    count(FrequencyImportance, "add", "add")
    count(fim, "heat_maps", "draw")
    count(trainer, "validate", "validate")
    return state


def test_train_infer_evaluate(pcss_scripts: Scripts, capsys: pytest.CaptureFixture) -> None:
    """Two rounds, all losses, masks and their pictures; then six seeds, one score."""
    assert pcss_scripts.train("x", "train.validate_from=2") == 0
    output, run = capsys.readouterr().out, Path("experiment/x")
    assert "RANDOM weights" in output and "done: 18 steps" in output and "methods/pcss/infer_pcss.py --name x" in output
    folders = {"config.yaml", "log.txt", "metrics.jsonl", "tensorboard", "ckpt", "importance"}
    assert {path.name for path in run.iterdir()} == folders
    assert set(contents(run / "importance")) == {"000.png", "001.png"}
    with Image.open(run / "importance" / "000.png") as picture:
        assert picture.format == "PNG" and picture.width > 300
    lines = metrics("x")
    kinds = [*["train"] * 6, "importance", *["train"] * 6, "importance", *["train"] * 6, "validation"]
    assert [line["kind"] for line in lines] == kinds
    train = [line for line in lines if line["kind"] == "train"]
    assert {"total", *LOSS_TERMS, "accuracy_cls", "accuracy_pcls", "lr"} <= train[0].keys()
    for line in train:
        assert (line["cls_suppressed"] > 0) == (line["cam_suppressed"] > 0) == (line["epoch"] > 0)
        assert line["cls_mixed"] > 0 and line["cam_mixed"] > 0
        weights = {"cam_suppressed": 2, "cam_mixed": 2}
        assert line["total"] == pytest.approx(sum(weights.get(name, 1) * line[name] for name in LOSS_TERMS), rel=1e-5)
    for line, epoch in ((lines[6], 0), (lines[13], 1)):
        assert (line["step"], line["epoch"]) == (6 * (epoch + 1), epoch)
        assert 0 < line["min_ratio"] < 1 and 0 < line["max_ratio"] <= 1
    state = last("x")["importance"]
    assert (state["rounds"], state["round_epoch"], state["done"]) == (2, -1, 0)
    assert state["current"].shape[1:] == (32, 32) and (state["current"].amax((1, 2)) > 0.5).all()
    assert not torch.equal(state["current"], state["previous"])

    assert pcss_scripts.infer("x", "--load_epo", 2, "--dict") == 0
    output = capsys.readouterr().out
    assert "6 seeds written, 0 were there" in output and "mIoU at threshold" in output
    seeds = {path.stem: read_seed(path) for path in (run / "dict").glob("*.npy")}
    assert len(seeds) == 6 and all(seed for seed in seeds.values())

    evaluation_script().main(["--name", "x", "--dict_dir", "dict", "--list", "val", "--out", "again"])
    assert (run / "again.csv").read_bytes() == (run / "eval_cam.csv").read_bytes()
    assert "IoU_reference_range" in (run / "again.csv").read_text() and "early_stop" in (run / "again.json").read_text()


# A piece of work, its number (in a round: the round, and its first or last step), and worker processes.
INTERRUPTS = [
    ("add", (0, "first"), 2), ("add", (0, "last"), 0), ("add", (1, "first"), 0), ("add", (1, "last"), 2),
    ("draw", 1, 0), ("draw", 2, 0), ("validate", 1, 0),
]  # fmt: skip


@pytest.mark.parametrize(("piece", "number", "workers"), INTERRUPTS)
def test_a_resumed_run_ends_bitwise_like_an_uninterrupted_one(
    pcss_scripts: Scripts, whole: SimpleNamespace, work: SimpleNamespace, piece: str, number: Any, workers: int
) -> None:
    """Stopped inside an epoch or a round, or at its end: weights, masks, every log line; nothing is done twice."""
    if piece == "add":
        of_round, place = number
        number = sum(whole.rounds[:of_round]) + (1 if place == "first" else whole.rounds[of_round])
    work.at = {piece: number}
    assert pcss_scripts.train("x", *EXACT, f"runtime.num_workers={workers}") == 143
    state = last("x")
    assert work.done[piece] == number and state["importance"].keys() == whole.last["importance"].keys()
    if piece == "add":
        assert state["position"]["total_steps"] == STEPS * (of_round + 1) and state["position"]["step"] == STEPS
        assert state["importance"]["round_epoch"] == of_round and state["importance"]["done"] > 0
        assert bool(state["importance"]["totals"].any())
    work.at = {}
    assert pcss_scripts.train("x", "--resume") == 0
    assert_ends_like("x", whole)
    assert work.done == {"step": STEPS * EPOCHS, "add": sum(whole.rounds), "draw": 2, "validate": 2}


def test_a_run_may_be_stopped_again_and_again(
    pcss_scripts: Scripts, whole: SimpleNamespace, work: SimpleNamespace
) -> None:
    """After every step of a round, and every second one of the training in between."""
    stops, code = [], 143
    while code == 143:
        work.at = {"step": work.done["step"] + 2, "add": work.done["add"] + 1}
        code = pcss_scripts.train("x", *(("--resume",) if stops else EXACT))
        stops.append((work.done["step"], work.done["add"]))
    first, second = whole.rounds
    of_rounds = [(3, done + 1) for done in range(first)] + [(6, first + done + 1) for done in range(second)]
    assert code == 0 and {(2, 0), *of_rounds, (5, first), (8, first + second)} <= set(stops)
    assert_ends_like("x", whole)


def test_a_failed_round_is_made_up_for(
    pcss_scripts: Scripts, whole: SimpleNamespace, work: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its beginning; the validation before is not repeated."""
    add = FrequencyImportance.add

    def fail(state: FrequencyImportance, *args: Any) -> None:
        add(state, *args)
        if state.round_epoch == 1:
            raise UserError("the image is damaged")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="image is damaged"):
        patch.setattr(FrequencyImportance, "add", fail)
        pcss_scripts.train("x", *EXACT)
    assert last("x")["position"]["total_steps"] == 2 * STEPS and last("x")["importance"]["round_epoch"] == -1
    assert pcss_scripts.train("x", "--resume") == 0
    assert_ends_like("x", whole)


def test_without_suppression_no_round_is_measured(pcss_scripts: Scripts) -> None:
    """W[0] = 0: no masks, no pictures, the terms are 0; with the mix off, too, a plain MCTformer is left."""
    for name, weights in (("x", "[0, 2]"), ("y", "[0, 0]")):
        assert pcss_scripts.train(name, f"loss.weights={weights}", "train.epochs=2") == 0
        assert last(name)["importance"]["rounds"] == 0 and not Path(f"experiment/{name}/importance").exists()
        assert {line["kind"] for line in metrics(name)} == {"train"}
        off = LOSS_TERMS[1:3] if name == "x" else LOSS_TERMS[1:]
        assert all((line[term] == 0) == (term in off) for line in metrics(name) for term in LOSS_TERMS)


def test_no_round_is_measured_in_the_middle_of_an_epoch(pcss_scripts: Scripts, work: SimpleNamespace) -> None:
    """Where a step limit ends the run; at the end of the epoch it is, for those who raise the limit."""
    assert pcss_scripts.train("x", "train.max_steps=5") == 0
    assert last("x")["importance"]["rounds"] == 0
    assert pcss_scripts.train("x", "--resume", "train.max_steps=6") == 0
    assert last("x")["importance"]["rounds"] == 1
    assert pcss_scripts.train("x", "--resume", "train.max_steps=7") == 0
    assert last("x")["importance"]["rounds"] == 1 and metrics("x")[-1]["cam_suppressed"] > 0


def test_another_number_of_blocks_cannot_be_resumed(pcss_scripts: Scripts) -> None:
    """The totals have another shape: a clear refusal."""
    assert pcss_scripts.train("x", "train.max_steps=1") == 0
    with pytest.raises(UserError, match=r"last\.pth does not fit this run"):
        pcss_scripts.train("x", "--resume", "fim.block=4")
    with pytest.raises(UserError, match=r"model\.img_size=32 is no multiple of fim\.block=5"):
        pcss_scripts.train("x", "--resume", "fim.block=5")


@pytest.mark.parametrize(
    "settings",
    [
        ("runtime.precision=bf16",), ("train.accumulation=2",), ("loss.share_prefix=true",), ("fim.corrected=true",),
        ("views.auto_augment=", "fim.batch_size=5"),
    ],
    ids=lambda settings: settings[0],
)  # fmt: skip
def test_other_settings(pcss_scripts: Scripts, work: SimpleNamespace, settings: tuple[str, ...]) -> None:
    """They run through a round and suppression; the weights stay float32, and all losses count."""
    assert pcss_scripts.train("x", "train.epochs=2", *settings) == 0
    assert {value.dtype for value in last("x")["model"].values()} == {torch.float32}
    assert last("x")["importance"]["rounds"] == 1
    assert all(metrics("x")[-1][name] > 0 for name in LOSS_TERMS)


def test_accumulation_gives_the_same_step(pcss_scripts: Scripts, work: SimpleNamespace) -> None:
    """Two micro-batches of 2 or one of 4: nearly the same weights, where no loss looks beyond an image."""
    fixed = ("loss.weights=[2, 0]", "model.drop_path=0", "train.epochs=2", "optim.warmup_epochs=0", "optim.eps=1e-3")
    for accumulation in (1, 2):
        assert pcss_scripts.train(str(accumulation), *fixed, f"train.accumulation={accumulation}") == 0
    one, two = last("1"), last("2")
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-4, atol=1e-5, msg=name)
    torch.testing.assert_close(two["importance"]["current"], one["importance"]["current"], rtol=1e-3, atol=1e-3)
    assert metrics("1")[-1]["cam_suppressed"] == pytest.approx(metrics("2")[-1]["cam_suppressed"], rel=1e-3) != 0
