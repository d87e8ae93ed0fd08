"""The picture of a run's course beside published curves."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.run.errors import UserError
from common.run.files import ROOT
from tests.datasets import call, script, write_lines

REFERENCE = ROOT / "docs" / "toco_reference_curve.csv"
TERMS = ["total", "cls", "seg", "lr", "val_seg", "val_f1"]


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The script in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call(monkeypatch, "plot_run", *arguments)


def write_run(lines: int = 6, last: str = "") -> Path:
    """A run of a few logged steps, validated after every second."""
    rows = []
    for number in range(1, lines + 1):
        step = 200 * number
        losses = {"total": 3 / number, "cls": 1 / number, "seg": 0.5}
        rows.append({"step": step, "epoch": 0, "kind": "train", **losses, "lr": 1e-5 * number})
        if number % 2 == 0:
            rows.append({"step": step, "kind": "validation", "val_seg": 10.0 * number, "val_f1": 80})
    path = Path("experiment/exp/metrics.jsonl")
    return write_lines(path, [*map(json.dumps, rows), *([last] if last else [])])


def is_used(panel: np.ndarray) -> bool:
    """Whether there is anything but white."""
    return bool((panel != 255).any())


def test_a_panel_for_each_term(draw, capsys: pytest.CaptureFixture) -> None:
    """In the order of the log; the places left over are empty, one legend stands above all."""
    run = script("plot_run").read_run(write_run())
    assert list(run) == TERMS
    assert (run["cls"].steps[:2], run["cls"].values[:2]) == ([200, 400], [1, 0.5])
    assert (run["val_seg"].steps, run["val_seg"].values) == ([400, 800, 1200], [20, 40, 60])
    write_run(last='{"step": 1400, "kind": "train", "acc')  # of a run that goes on
    assert draw("exp") == 0
    assert "6 terms of exp" in capsys.readouterr().out
    two_rows = np.array(Image.open("experiment/exp/curves.png").convert("L"))
    row = {"step": 1400, "kind": "train", "accuracy_cls": 0.5}
    write_run(last=json.dumps(row))
    assert draw("exp", "--out", "other/place.png") == 0
    three_rows = np.array(Image.open("other/place.png").convert("L"))
    height, width = three_rows.shape
    assert height > 1.4 * two_rows.shape[0]
    bottom = three_rows[-height // 3 + 20 :]
    assert is_used(bottom[:, : width // 3]) and not is_used(bottom[:, width // 3 + 20 :])


def test_means_count_by_their_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean of 2 steps moves the running mean by 2 steps' worth; without ``steps`` the distance to the line before."""
    monkeypatch.chdir(tmp_path)
    plot = script("plot_run")
    rng = np.random.default_rng(0)
    losses = rng.random(210)
    ends = [*range(50, 201, 50), 202, 210]
    rows, begin = [], 0
    for end in ends:
        mean = losses[begin:end].mean()
        rows.append({"step": end, "kind": "train", "total": mean, "steps": end - begin})
        rows.append({"step": end, "kind": "validation", "val_miou": 1.0})
        begin = end
    new = plot.read_run(write_lines(Path("new.jsonl"), map(json.dumps, rows)))
    for row in rows:
        row.pop("steps", None)
    old = plot.read_run(write_lines(Path("old.jsonl"), map(json.dumps, rows)))
    assert new == old and new["total"].weights == [50, 50, 50, 50, 2, 8] and set(new["val_miou"].weights) == {1}
    smoothed = new["total"].smoothed(60)
    assert smoothed[-1] == pytest.approx(losses[150:210].mean())  # as if every step were a line
    assert smoothed[-2] == pytest.approx(losses[100:202].mean())  # all lines that end within the last 60 steps
    np.testing.assert_allclose(new["total"].smoothed(1), new["total"].values)


def test_where_a_loss_switches_on(draw, capsys: pytest.CaptureFixture) -> None:
    """Marked after its last line of 0; a term that is on from the beginning, or never, has no mark."""
    plot = script("plot_run")
    values = {"total": [1, 1, 1, 1], "late": [0, 0, 0.5, 0], "never": [0, 0, 0, 0], "val_miou": [0, 3, 3, 3]}
    rows = [
        {"step": 10 * (i + 1), "kind": "train", **{name: column[i] for name, column in values.items()}}
        for i in range(4)
    ]
    run = plot.read_run(write_lines(Path("experiment/exp/metrics.jsonl"), map(json.dumps, rows)))
    assert {name: term.begins() for name, term in run.items()} == {
        "total": None, "late": 20, "never": None, "val_miou": 10,
    }  # fmt: skip
    np.testing.assert_allclose(run["late"].smoothed(40), [0, 0, 0.5, 0.25])  # without the steps before it was on
    assert draw("exp") == 0
    marked = Path("experiment/exp/curves.png").read_bytes()
    rows[0]["late"] = rows[1]["late"] = 0.1
    write_lines(Path("experiment/exp/metrics.jsonl"), map(json.dumps, rows))
    assert draw("exp") == 0 and Path("experiment/exp/curves.png").read_bytes() != marked


def test_published_curves_are_drawn_beside_it(draw, capsys: pytest.CaptureFixture) -> None:
    """Those that are asked for; all without a choice. The axis is the run's."""
    write_run()
    pictures = []
    for series in ("", ":voc", ":voc deit_base"):
        assert draw("exp", "--reference", f"{REFERENCE}{series}") == 0
        pictures.append(Path("experiment/exp/curves.png").read_bytes())
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.endswith("exp, voc deit_base, voc vit_base, coco deit_base, coco vit_base")
    assert second.endswith("exp, voc deit_base, voc vit_base") and third.endswith("exp, voc deit_base")
    assert len(set(pictures)) == 3
    late = write_lines(Path("late.csv"), ["iteration,total", "9000,1"])
    assert draw("exp", "--reference", late, f"{REFERENCE}:coco vit_base") == 0
    assert "note: late begins at step 9000, after the run's last line at step 1200" in capsys.readouterr().out


def test_the_published_numbers(draw) -> None:
    """Some of them, as the logs have them; nothing is left out of a column."""
    curves = script("plot_run").read_reference(str(REFERENCE))
    assert set(curves) == {"voc deit_base", "voc vit_base", "coco deit_base", "coco vit_base"}
    deit, vit = curves["voc deit_base"], curves["coco vit_base"]
    assert (
        deit["seg"][0] == (200, 2.8266) and deit["val_seg"][-1] == (20000, 68.097) and deit["lr"][0] == (200, 7.96e-6)
    )
    assert vit["val_cam_aux"][0] == (4000, 26.03) and vit["elapsed_s"][-1] == (80000, 86400 + 3 * 3600 + 13 * 60 + 42)
    assert {name: len(points) for name, points in deit.items()} == {
        **dict.fromkeys(("elapsed_s", "lr", "cls", "cls_aux", "ptc", "ctc", "seg"), 16),
        **dict.fromkeys(("val_f1", "val_cam", "val_cam_aux", "val_seg"), 10),
    }
    assert all(len(points) == 20 for points in vit.values()) and deit.keys() == vit.keys()
    for term, points in {**deit, **vit}.items():
        assert [step for step, _ in points] == sorted({step for step, _ in points}), term


def test_what_cannot_be_drawn(draw, tmp_path: Path) -> None:
    """A message says what there is instead."""
    with pytest.raises(UserError, match="no run folder experiment/exp"):
        draw("exp")
    path = write_run()
    for more, words in (
        (("--smooth", "2"), "--smooth: it is 2; it must be finite and from 0 to 1"),
        (("--reference", "nowhere.csv"), r"the reference nowhere\.csv cannot be read"),
        (("--reference", f"{REFERENCE}:cub"), "no series 'cub'; there are: voc deit_base, voc vit_base, coco deit"),
        (("--reference", f"{REFERENCE}:voc x"), "no series 'voc x'; there are: voc deit_base"),
    ):
        with pytest.raises(UserError, match=words):
            draw("exp", *more)
    for lines, words in (
        (["iteration,total,total2", "1,2"], None),
        (["step,total", "1,2"], "no column 'iteration'; it has step, total"),
        (
            ["iteration,unknown", "1,2"],
            "none of the run's terms total, cls, seg, lr, val_seg, val_f1; its columns are unk",
        ),
        (["iteration,total", "1,much"], "'much' is no number"),
        (["iteration,total", "1,2,3"], "is no number"),
    ):
        table = write_lines(tmp_path / "table.csv", ["# a comment", *lines])
        if words is None:
            assert draw("exp", "--reference", table) == 0
            continue
        with pytest.raises(UserError, match=words):
            draw("exp", "--reference", table)
    write_lines(path, ["damaged", '{"step": 1, "kind": "train", "total": 2}'])
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1, is no line of numbers"):
        draw("exp")
    write_lines(path, ['{"step": 1, "total"'])
    with pytest.raises(UserError, match="holds no numbers yet"):
        draw("exp")
    path.unlink()
    with pytest.raises(UserError, match=r"no experiment/exp/metrics\.jsonl"):
        draw("exp")
