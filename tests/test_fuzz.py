"""The fuzzer finds what is wrong with a reader, and nothing is wrong with the project's."""

import faulthandler
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from common.fuzz.engine import Reader, fuzz, outcome_of
from common.fuzz.readers import readers
from common.run.errors import UserError
from tests.datasets import call

READERS = readers()
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")
def test_mutated_files_give_a_value_or_one_clear_line(tmp_path: Path, name: str) -> None:
    """A short run; of the sound files some give values."""
    reader = READERS[name]
    found = []
    for content in reader.samples():
        (tmp_path / f"input{reader.suffix}").write_bytes(content)
        found.append(outcome_of(reader, tmp_path / f"input{reader.suffix}"))
    assert "value" in found and set(found) <= {"value", "error"}
    count = 15 if name in ("config", "overrides", "checkpoint", "archive") else 60
    findings = fuzz(reader, tmp_path, seconds=20, seed=1, most=count)
    assert not findings.failures and findings.total == count and findings.errors


def failing(path: Path) -> Any:
    """Fails in every way that is to be found, by the last byte of the file."""
    kind = path.read_bytes()[-1:]
    if kind == b"a":
        raise KeyError("a")
    if kind == b"b":
        faulthandler.disable()  # no report of the crash in the suite's output
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == b"c":
        raise UserError("two\nlines")
    if kind == b"d":
        time.sleep(99)
    if kind == b"e":
        raise UserError("fine")


def test_failures_are_found_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception, a signal, a message of two lines, a hang; the input is kept, and the rest goes on."""
    monkeypatch.setattr("common.fuzz.engine.SECONDS", 0.3)
    monkeypatch.setattr("common.fuzz.engine.mutated", lambda rng, samples: rng.choice(samples))
    samples = [bytes([97 + index % 6]) for index in range(6)]
    found = fuzz(Reader(".x", failing, lambda: samples), tmp_path, seconds=60, most=40)
    assert found.total == 40 and found.values and found.errors
    kinds = " | ".join(found.failures)
    for words in ("KeyError at test_fuzz.py", "signal 11", "in 2 lines", "takes over"):
        assert words in kinds
    assert set(found.saved.values()) == {b"a", b"b", b"c", b"d"}


def test_the_script_saves_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """And its exit code tells of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("common.fuzz.readers.readers", lambda: {"bad": Reader(".x", failing, lambda: [b"a"])})
    assert call(monkeypatch, "fuzz", "bad", "--seconds", 0.3) == 1
    assert "the first: experiment/fuzz/bad-0.x" in capsys.readouterr().out and Path("experiment/fuzz/bad-0.x").is_file()
