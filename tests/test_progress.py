"""Progress: a bar in a terminal, elsewhere a line every 30 seconds, by the main process alone."""

import io
import sys

import pytest

from common.run import progress as module
from common.run.files import ROOT
from common.run.progress import ProgressBar, map_in_processes, progress


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of all bars."""
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    monkeypatch.setattr(ProgressBar, "_silent", 0.0)
    return clock


def test_a_line_every_30_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """It tells the count, the time passed, and the time left at the speed of this call."""
    with ProgressBar("masks", 100, initial=40) as bar:
        for _ in range(50):
            clock.now += 2
            bar.advance()
        bar.show("loss 0.5")
        clock.now += 20
        bar.advance()
    assert capsys.readouterr().err.splitlines() == [
        "masks: 55 of 100 (55 %), 00:30 passed, 01:30 left", "masks: 70 of 100 (70 %), 01:00 passed, 01:00 left",
        "masks: 85 of 100 (85 %), 01:30 passed, 00:30 left",
        "masks: 91 of 100 (91 %), 02:00 passed, 00:22 left; loss 0.5",
    ]  # fmt: skip


def test_short_bars_are_told_together(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Four epochs of 12 seconds make one line, and time between bars does not count."""
    for epoch in range(4):
        clock.now += 100
        for _ in progress(range(3), f"epoch {epoch}"):
            clock.now += 4
    assert capsys.readouterr().err.splitlines() == ["epoch 2: 2 of 3 (66 %), 00:08 passed, 00:04 left"]


def test_an_unknown_total_and_bytes(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress(iter("ab"), "files"):
        clock.now += 31
    with ProgressBar("voc.tar", 2_000_000_000, unit="B") as bar:
        clock.now += 31
        bar.advance(500_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "files: 1, 00:31 passed"
    assert lines[-1] == "voc.tar: 500MB of 2.00GB (25 %), 00:31 passed, 01:33 left"


def test_other_processes_are_silent(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress(range(3), "masks", active=False):
        clock.now += 100
    assert not capsys.readouterr().err


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar shows the share and the time left, and is gone at the end."""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress("abc", "masks")) == ["a", "b", "c"]
    said = terminal.getvalue()
    assert "masks:" in said and "0/3 [00:00<?" in said and not said.rstrip(" ").rpartition("\r")[2]


def test_map_in_processes() -> None:
    assert map_in_processes(abs, [-3, 2, -1], 2, "numbers") == [3, 2, 1] and map_in_processes(abs, [], 2, "none") == []


def test_nothing_else_draws_bars() -> None:
    """The log writes between bars, an error ends them; everything else shows progress by this module."""
    files = [path for folder in ("common", "methods", "scripts") for path in (ROOT / folder).rglob("*.py")]
    using = {str(path.relative_to(ROOT)) for path in files if "tqdm" in path.read_text(encoding="utf-8")}
    assert using == {f"common/run/{name}.py" for name in ("progress", "log", "errors")}
