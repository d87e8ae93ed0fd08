"""Benchmarks compare the project's random walks with dense matrix powers: their labels are equal, their rows whole."""

import importlib
import sys

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("method", ["irn", "psa"])
def test_labels_of_the_random_walk(
    method: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"methods.{method}.benchmark")
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--size", "96", "128", "--turns", "1"])
    assert module.main() == 0
    header, _, row = capsys.readouterr().out.strip().splitlines()
    assert header.count("|") == row.count("|")
    assert row.startswith("| 96 x 128 |") and row.endswith("| equal |")
