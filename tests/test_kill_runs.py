"""A training that is killed (kill -9) goes on to the same bytes; the full runs are those of docs/robustness.md."""

import json
from pathlib import Path

import pytest

from tests.datasets import call, script


@pytest.mark.usefixtures("one_thread")
def test_a_killed_training_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process and no temporary file is left; a difference is named, and ends with code 1."""
    monkeypatch.chdir(tmp_path)
    kill_runs = script("kill_runs")
    train = {**kill_runs.TINY["train"], "epochs": 1, "validate_from": 0}
    monkeypatch.setattr(kill_runs, "TINY", {**kill_runs.TINY, "train": train})
    folder = tmp_path / "work"
    assert call(monkeypatch, "kill_runs", "--kinds", "training", "--kills", 1, "--seed", 1, "--folder", folder) == 0
    figures = json.loads((folder / "figures.json").read_text())["training"]
    assert figures["kills"] == 1 and not figures["different results"]
    sound = kill_runs.results(folder / "experiment")
    (folder / "experiment/run/metrics.jsonl").write_text('{"step": 1}\n')
    (folder / "experiment/run/new").touch()
    assert kill_runs.differing(sound, kill_runs.results(folder / "experiment")) == ["run/metrics.jsonl", "run/new"]
