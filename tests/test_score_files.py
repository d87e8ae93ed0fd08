"""Files of scores and records that are read back: damaged ones, and those of another kind, end in one clear line."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.fuzz import samples
from common.pipeline.recipe import RECIPES, Recipe
from common.pipeline.stages import read_state
from common.run.errors import UserError
from common.score.card import read_card
from common.score.read import read_score


def changed(content: bytes, place: str, value: Any) -> str:
    """A JSON with another value at a place of names with dots between them; "gone" for none."""
    found = json.loads(content)
    *path, last = place.split(".")
    inner = found
    for name in path:
        inner = inner[int(name) if isinstance(inner, list) else name]
    if value == "gone":
        del inner[last]
    else:
        inner[int(last) if isinstance(inner, list) else last] = value
    return json.dumps(found)


def message(read: Any, *arguments: Any) -> str:
    """The line that reading ends with."""
    with pytest.raises(UserError) as caught:
        read(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("place", "value", "words"), [
    ("best", [], "'best'"), ("best", "gone", "no 'best'"), ("best.mIoU", "61", "'best.mIoU'"), ("list", 3, "'list'"),
    ("list", "gone", "no 'list'"), ("best.mIoU", float("nan"), "'best.mIoU'"), ("thresholds", [[]], "'thresholds'"),
    ("best.threshold", 10**400, "'best.threshold'"), ("best.classes.cat", [], "'best.classes.cat'"),
    ("best.classes", 3, "'best.classes'"), ("fixed.absent", "cow", "'fixed.absent'"), ("images", "6", "'images'"),
])  # fmt: skip
def test_scores(tmp_path: Path, place: str, value: Any, words: str) -> None:
    file = tmp_path / "eval_cam.json"
    file.write_bytes(samples.scores()[0])
    assert read_score(file, ["list"])["best"]["mIoU"] == 61.5
    file.write_text(changed(samples.scores()[0], place, value))
    text = message(read_score, file, ["list"])
    assert words in text and "Run evaluation.py again" in text and str(file) in text


@pytest.mark.parametrize(("place", "value"), [
    ("main", "other"), ("labels", [3]), ("points", []), ("points.best.means.extra.interval", [1]),
    ("points.best.means.mIoU.value", None), ("points.best.classes.cat.IoU", 3.0),
])  # fmt: skip
def test_cards(tmp_path: Path, place: str, value: Any) -> None:
    (tmp_path / "a_card.json").write_bytes(samples.cards()[0])
    assert read_card(tmp_path, "a")["main"] == "best"
    (tmp_path / "a_card.json").write_text(changed(samples.cards()[0], place, value))
    assert "run evaluation.py --card again" in message(read_card, tmp_path, "a")


@pytest.mark.parametrize(("place", "value"), [
    ("table", {}), ("table.0", 3), ("table.0.mIoU", "61"), ("table.0.stage", "gone"), ("stages.scores.seconds", "1"),
])  # fmt: skip
def test_records_of_pipelines(tmp_path: Path, place: str, value: Any) -> None:
    file = tmp_path / "pipeline_crf.json"
    file.write_text(changed(samples.pipeline_records()[0], place, value))
    assert "delete it" in message(read_state, file)


def test_recipes(tmp_path: Path) -> None:
    """Read strictly, as every YAML."""
    text = (RECIPES / "cti_demo.yaml").read_text()
    file = tmp_path / "a.yaml"
    for content, words in (
        (text + "title: again\n", "is there twice"),
        (text.replace("what:", "which:"), "is no recipe"),
        ("a: 1", "is no recipe"),
    ):
        file.write_text(content)
        assert words in message(Recipe.read, file)
