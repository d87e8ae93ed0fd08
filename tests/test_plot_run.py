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
    """In the order of the log; the places left over are empty."""
    run = script("plot_run").read_run(write_run())
    assert list(run) == TERMS
    assert run["cls"][:2] == [(200, 1), (400, 0.5)] and run["val_seg"] == [(400, 20), (800, 40), (1200, 60)]
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


def test_published_curves_are_drawn_beside_it(draw, capsys: pytest.CaptureFixture) -> None:
    """Those that are asked for; all without a choice."""
    write_run()
    pictures = []
    for more in ((), ("--dataset", "voc"), ("--dataset", "voc", "--backbone", "deit_base")):
        assert draw("exp", "--reference", REFERENCE, *more) == 0
        pictures.append(Path("experiment/exp/curves.png").read_bytes())
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.endswith("exp, voc deit_base, voc vit_base, coco deit_base, coco vit_base")
    assert second.endswith("exp, voc deit_base, voc vit_base") and third.endswith("exp, voc deit_base")
    assert len(set(pictures)) == 3


def test_the_published_numbers(draw) -> None:
    """Some of them, as the logs have them; nothing is left out of a column."""
    curves = script("plot_run").read_reference(REFERENCE, {"dataset": None, "backbone": None})
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
        (("--dataset", "voc"), "choose curves of --reference FILE"),
        (("--reference", "nowhere.csv"), r"the reference nowhere\.csv cannot be read"),
        (("--reference", REFERENCE, "--dataset", "cub"), "no rows of dataset 'cub'; there are: coco, voc"),
        (("--reference", REFERENCE, "--backbone", "x"), "no rows of backbone 'x'; there are: deit_base, vit_base"),
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
    with pytest.raises(UserError, match="no column 'backbone'"):
        draw("exp", "--reference", write_lines(tmp_path / "table.csv", ["iteration,cls", "1,2"]), "--backbone", "x")
    write_lines(path, ["damaged", '{"step": 1, "kind": "train", "total": 2}'])
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1, is no line of numbers"):
        draw("exp")
    write_lines(path, ['{"step": 1, "total"'])
    with pytest.raises(UserError, match="holds no numbers yet"):
        draw("exp")
    path.unlink()
    with pytest.raises(UserError, match=r"no experiment/exp/metrics\.jsonl"):
        draw("exp")
