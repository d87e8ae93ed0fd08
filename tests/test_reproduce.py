"""Recipes of reproductions, their commands, and a whole reproduction of a tiny experiment."""

import contextlib
import json
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from common.data.lists import LIST_DIR
from common.pipeline import recipe as recipes
from common.pipeline.builders import PLANNED
from common.pipeline.recipe import RECIPES, Recipe, Result, recipe_path
from common.pipeline.stages import StageRunner
from common.run.config import config_path
from common.run.errors import UserError
from common.run.files import ROOT
from common.run.folder import RunFolder
from common.run.lock import unlock_all
from common.run.method import method_of
from tests.datasets import call, script
from tests.experiments import write_experiment
from tests.test_readme import run_here

NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_names_what_there_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scripts accept every command, whatever is missing for it; plans and lists exist; ranges hold the numbers."""
    recipe = Recipe.read(RECIPES / f"{name}.yaml")
    monkeypatch.chdir(tmp_path)
    for step in recipe.stages:
        assert not step.plan or method_of(config_path(step.plan)) in PLANNED
        path, *arguments = step.words("run", [])
        if step.prepares:
            continue
        monkeypatch.setattr(sys, "argv", [path, *arguments, "--check"])
        with pytest.raises(UserError) as error:  # there is no data here
            runpy.run_path(str(ROOT / path))["main"]()
        assert not any(word in str(error.value) for word in ("unknown", "wrong value", "--help"))
    assert all(list(LIST_DIR.glob(f"*/{name}.txt")) for name in recipe.lists)
    for result in recipe.results:
        assert result.expected is None or result.published is None or (
            result.expected[0] < result.published < result.expected[1]
        )  # fmt: skip


def test_the_page_is_up_to_date() -> None:
    """docs/reproductions.md is what its script writes."""
    module = script("reproductions_page")
    assert (ROOT / "docs" / "reproductions.md").read_text(encoding="utf-8") == module.page()


def test_unknown_recipes_are_named() -> None:
    with pytest.raises(UserError, match=r"no recipe of 'ctj' on 'voc12'\. Did you mean cti_voc12\?"):
        recipe_path("ctj", "voc12")


@pytest.fixture
def reproduce(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The script with a recipe of a tiny experiment, in an empty folder."""
    experiment = write_experiment(tmp_path / "tiny.yaml", shapes)
    experiment.write_text(f"method: CTI\n{experiment.read_text()}")
    commands = {
        "training": f"methods/cti/train_trm.py --name {{name}} --exp {experiment}",
        "seeds": "methods/cti/infer_trm.py --name {name} --dict",
        "score": "evaluation.py --name {name} --task cam --dict_dir dict --list val --card",
    }
    result = {"what": "seeds", "published": 50.0, "source": "nobody", "expected": [0.0, 100.0], "file": "eval_cam.json"}
    content = {
        "title": "Tiny", "lists": ["train_aug"], "results": [result],
        "stages": [{"title": title, "command": command} for title, command in commands.items()],
    }  # fmt: skip
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "cti_tiny.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(recipes, "RECIPES", tmp_path / "recipes")
    monkeypatch.setattr(StageRunner, "run", run_methods_here(monkeypatch))
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call(monkeypatch, "reproduce", "cti", "--dataset", "tiny", "--name", "run", *arguments)


def run_methods_here(monkeypatch: pytest.MonkeyPatch) -> Callable[[StageRunner, Sequence[str]], int]:
    """In place of `StageRunner.run`: methods' scripts run in this process, which spares their imports."""
    start = StageRunner.run

    def run(runner: StageRunner, command: Sequence[str]) -> int:
        path = Path(command[1]).relative_to(ROOT)
        if path.parts[0] != "methods":
            return start(runner, command)
        try:
            return run_here(str(path), list(command[2:]), monkeypatch)
        finally:
            unlock_all()  # as the end of its process does

    return run


def test_a_reproduction(
    reproduce, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing weights are named before any work; the stages run once; the table has the interval."""
    with pytest.raises(UserError, match=r"missing for this reproduction:\n  - no weights file at lost\.pth$"):
        reproduce("model.pretrained=lost.pth")
    assert not RunFolder("run").checkpoints.exists()
    assert reproduce("--dry-run") == 0
    assert "[3/3] score\n    python evaluation.py --name run --task cam" in capfd.readouterr().out

    on_gpu = iter((7, 0, 0))
    with monkeypatch.context() as patch:
        given = contextlib.nullcontext(lambda: next(on_gpu))
        patch.setattr(script("reproduce"), "gpu_memory_of_scripts", lambda: given)
        assert reproduce() == 0
    record = json.loads((tmp_path / "experiment" / "run_reproduction" / "reproduction.json").read_text())
    assert [(stage["title"], stage["done"]) for stage in record["stages"]] == [
        ("training", True), ("seeds", True), ("score", True),
    ]  # fmt: skip
    assert all(stage["seconds"] > 0 for stage in record["stages"]) and record["stages"][-1]["peak_memory"] > 5e7
    assert [stage.get("peak_gpu_memory") for stage in record["stages"]] == [7, None, None]
    (row,) = record["results"]
    score = json.loads((tmp_path / "experiment" / "run" / "eval_cam.json").read_text())
    assert row["here"] == score["best"]["mIoU"] and row["within"]
    assert row["interval"][0] <= row["here"] <= row["interval"][1]
    assert record["lists"].keys() == {"voc12/train_aug.txt"} and len(record["lists"]["voc12/train_aug.txt"]) == 64
    assert record["versions"]["torch"] and record["commit"] and record["device"]
    assert f"| seeds | 50.0 | {row['here']:.2f} [" in capfd.readouterr().out

    assert reproduce() == 0
    shown = capfd.readouterr().out
    assert shown.count("done, skipped") == 3
    with pytest.raises(UserError, match="of another recipe or of other settings"):
        reproduce("optim.lr=1e-4")


def test_a_number_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunFolder("run")
    run.create()
    run.scores("eval_cam").write_text('{"best": {}}')
    with pytest.raises(UserError, match=r"has no number best\.mIoU"):
        Result("seeds", "nobody", "eval_cam.json").measured("run")
