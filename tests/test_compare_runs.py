"""Comparison of runs by their evaluation cards: paired differences, groups of seeds, requirements, bad input."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.run.errors import UserError
from common.run.files import write_json
from common.score import compare, means
from common.score.bootstrap import draws
from common.score.card import point_card
from common.score.image_counts import PerImage
from common.score.per_image import write_per_image
from tests.datasets import call

LABELS = ["background", "cat", "dog"]


def counts_of(seed: int, quality: float, images: int = 40) -> PerImage:
    """The same truth for every seed; predictions of a quality, a tenth of it by chance."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(0).integers(100, 1000, (images, 3))
    correct = (truth * np.clip(quality + 0.1 * rng.random((images, 3)), 0, 1)).astype(np.int64)
    predicted = correct + rng.integers(0, 30, (images, 3))
    both = (np.stack([values, values // 4]) for values in (truth, predicted, correct))
    return PerImage([f"i{number:02}" for number in range(images)], LABELS, *both)


def write_run(name: str, counts: PerImage, stem: str = "eval_cam", seed: int | None = 0, lr: float = 0.1) -> None:
    """A run folder with a card and a configuration."""
    run = Path("experiment") / name
    content = {
        "task": "cam", "source": "", "list": "val", "images": len(counts.ids), "labels": counts.labels, "main": "best",
        "points": {"best": {"threshold": 0.2, **point_card(counts, np.zeros((3, 3)))}},
    }  # fmt: skip
    write_json(run / f"{stem}_card.json", content)
    write_per_image(run / f"{stem}_per_image.csv", {"best": counts})
    if seed is not None:
        (run / "config.yaml").write_text(f"optim: {{lr: {lr}}}\nruntime: {{seed: {seed}}}\n")


@pytest.fixture
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Calls the script in an empty folder, with fewer draws."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(means, "draws", lambda images: draws(images, 300))
    return lambda *arguments: call(monkeypatch, "compare_runs", *arguments)


def test_a_run_against_itself_is_zero(compared: Callable[..., int], capsys: pytest.CaptureFixture) -> None:
    write_run("a", counts_of(1, 0.7))
    assert compared("a", "a") == 0
    shown = capsys.readouterr().out
    assert "mIoU            +0.00 [+0.00, +0.00]" in shown and "0 better, 0 worse" in shown


def test_differences_are_paired(compared: Callable[..., int], capsys: pytest.CaptureFixture) -> None:
    """Both runs are hit alike by hard images, so their difference is far surer than their scores."""
    better = counts_of(1, 0.7)
    write_run("b", better)
    rng = np.random.default_rng(5)
    hard = rng.random((40, 1)) < 0.4
    correct = np.where(hard, better.correct // 2, better.correct)
    write_run("a", replace(better, correct=correct))
    write_run("c", replace(better, correct=correct - 5))
    assert compared("c", "a", "--json", "out.json", "--require", "a>c", "--images", "3") == 0
    (found,) = json.loads(Path("out.json").read_text())["differences"]
    scores = json.loads(Path("out.json").read_text())["scores"]["a"]["mIoU"]
    low, high = found["means"]["mIoU"]["interval"]
    assert 0 < low < found["means"]["mIoU"]["value"] < high
    assert high - low < (scores["interval"][1] - scores["interval"][0]) / 10
    assert found["better"] == 40 and found["classes"].keys() == set(LABELS)
    assert "40 better, 0 worse" in capsys.readouterr().out


def test_requirements(compared: Callable[..., int], capsys: pytest.CaptureFixture) -> None:
    write_run("a", counts_of(1, 0.7))
    write_run("b", counts_of(2, 0.7))
    assert compared("a", "b", "--require", "b>a") == 1
    assert "FAILED: b>a: the difference in mIoU is" in capsys.readouterr().out
    for text, words in (("b", "write it as"), ("b>x", "'x' is not compared"), ("a>a", "same run")):
        with pytest.raises(UserError, match=words):
            compared("a", "b", "--require", text)


def test_runs_that_differ_in_the_seed_are_one_group(
    compared: Callable[..., int], capsys: pytest.CaptureFixture
) -> None:
    for seed in range(3):
        write_run(f"a{seed}", counts_of(seed, 0.6), seed=seed)
        write_run(f"b{seed}", counts_of(seed + 9, 0.8), seed=seed, lr=0.2)
    assert compared("a0", "b0", "a1", "b1", "a2", "b2", "--require", "b1>a2") == 0
    shown = capsys.readouterr().out
    assert "b0, b1, b2 above a0, a1, a2" in shown and shown.count("over 3 seeds") == 2
    groups = compare.grouped(compare.aligned([compare.read_run(name) for name in ("a0", "a1", "a2")]))
    values = [means.mean_intervals(counts_of(seed, 0.6))["mIoU"].value for seed in range(3)]
    assert groups[0].spread("mIoU") == pytest.approx((np.mean(values), np.std(values, ddof=1)))


def test_order_of_images_does_not_matter(compared: Callable[..., int]) -> None:
    counts = counts_of(1, 0.7)
    write_run("a", counts)
    write_run("b", counts.ordered(counts.ids[::-1]))
    runs = compare.aligned([compare.read_run("a"), compare.read_run("b")])
    assert runs[1].counts.ids == counts.ids
    np.testing.assert_array_equal(runs[1].counts.correct, counts.correct)


def test_what_cannot_be_compared(compared: Callable[..., int]) -> None:
    counts = counts_of(1, 0.7)
    write_run("a", counts)
    write_run("fewer", counts_of(1, 0.7, 39))
    write_run("masks", replace(counts, truth=counts.truth + 1))
    write_run("classes", replace(counts, labels=["background", "cat", "hen"]))
    write_run("two", counts, "eval_png")
    write_run("two", counts, "eval_crf")
    Path("experiment/none").mkdir()
    for name, words in (
        ("fewer", "different images, such as i39"), ("masks", "different masks, as of i00"),
        ("classes", "different classes"), ("two", "two:eval_crf, two:eval_png"), ("none", "--card"),
        ("a:eval_png", "There are: a:eval_cam"), ("gone", "no run folder"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            compared("a", name)
    with pytest.raises(UserError, match="two runs are needed"):
        compared("a")
    with pytest.raises(UserError, match="no point 'fixed'"):
        compared("a", "a", "--point", "fixed")
    assert compared("a", "two:eval_png") == 0
