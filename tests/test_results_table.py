"""Result tables: the pages show the numbers that are stored, and the numbers are the cards' own."""

import json
from pathlib import Path

import pytest

from common.run.errors import UserError
from common.run.files import ROOT, write_json
from tests.datasets import call, script
from tests.test_compare_runs import counts_of, write_run

TABLE = """demo:
  header: [run, mIoU]
  rows:
    - [a, "{a}"]
    - [missed, "{a:eval_cam:best:missed}"]
    - [small, "{a:eval_cam:best:sizes.small.recall}"]
    - [b above a, "{b - a}"]
"""


def test_pages_show_the_stored_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "results_table", "write", "--check") == 0
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    number = json.loads((ROOT / "docs" / "results.json").read_text())["cti_demo"]
    assert f"{number['value']:.1f} [{number['interval'][0]:.1f}, {number['interval'][1]:.1f}]" in text


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one page, one table and two runs."""
    monkeypatch.chdir(tmp_path)
    module = script("results_table")
    for name, value in {"ROOT": tmp_path, "TABLES": tmp_path / "docs/results.yaml"}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "NUMBERS", tmp_path / "docs/results.json")
    Path("docs").mkdir()
    Path("docs/results.yaml").write_text(TABLE)
    Path("README.md").write_text("before\n<!-- results: demo -->\nold\n<!-- /results -->\nafter\n")
    write_run("a", counts_of(1, 0.6))
    write_run("b", counts_of(2, 0.7))
    return tmp_path


def test_numbers_are_collected_and_written(
    tables: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert call(monkeypatch, "results_table", "collect") == 0
    assert call(monkeypatch, "results_table", "write", "--check") == 1 and "old" in Path("README.md").read_text()
    assert call(monkeypatch, "results_table", "write") == 0
    lines = Path("README.md").read_text().splitlines()
    card = json.loads(Path("experiment/a/eval_cam_card.json").read_text())["points"]["best"]
    low, high = card["means"]["missed"]["interval"]
    assert lines[5] == f"| missed | {card['means']['missed']['value']:.1f} [{low:.1f}, {high:.1f}] |"
    assert f"| {card['sizes']['small']['recall']['value']:.1f} [" in lines[6]
    assert lines[7].startswith("| b above a | +9.6 [") and lines[-1] == "after"
    assert call(monkeypatch, "results_table", "write", "--check") == 0
    kept = Path("docs/results.json").read_text()
    Path("experiment/a/eval_cam_card.json").unlink()
    assert call(monkeypatch, "results_table", "collect") == 0  # a run that is gone keeps its numbers, and is named
    assert "a: no experiment/a/eval_cam_card.json" in capsys.readouterr().out
    assert Path("docs/results.json").read_text() == kept
    assert call(monkeypatch, "results_table", "show", "b") == 0
    assert "| b | " in capsys.readouterr().out


def test_scores_of_localisation(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"last": {"gt_known": 75.0, "intervals": {"gt_known": [70.0, 80.0]}}}
    write_json("experiment/a/eval_wsol.json", {"weights": weights})
    measure = script("results_table").measure
    assert measure("a:eval_wsol:last:gt_known") == (75, 70, 80)
    for place in (
        "a:eval_wsol:best:gt_known",
        "a:eval_cam:best:sizes",
        "a:eval_cam:fixed:x.y",
        "a:eval_cam:best:labels",
    ):
        with pytest.raises(UserError, match="no score with an interval"):
            measure(place)


def test_bad_tables(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="collect"):
        call(monkeypatch, "results_table", "write")
    for text, words in (
        ("[1]", "must hold sections"),
        (TABLE.replace("[a, ", "[a, b, "), "as many cells"),
        ("{", "not a readable YAML"), ("t: 1", "has no tables"),
    ):
        Path("docs/results.yaml").write_text(text)
        with pytest.raises(UserError, match=words):
            call(monkeypatch, "results_table", "collect")
    Path("docs/results.yaml").write_text(TABLE)
    write_json("docs/results.json", {})
    with pytest.raises(UserError, match=r"no value of \{a\}"):
        call(monkeypatch, "results_table", "write")
    Path("README.md").write_text("<!-- results: other -->\n<!-- /results -->\n")
    with pytest.raises(UserError, match="'other', which is not in"):
        call(monkeypatch, "results_table", "write")
    with pytest.raises(UserError, match="show takes runs"):
        call(monkeypatch, "results_table", "show")
