"""The set-up script, with an installer that only notes what it is asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.run.files import ROOT

CRF = "uv pip install -c requirements.txt -r requirements-crf.txt"
INSTALLS = ["uv pip install -r requirements.txt", "uv pip install --no-deps -e .", CRF]


class SetUp:
    """A copy of the script in a folder where pydensecrf2 can be built if there is a file ``builds``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stamp = folder, folder / ".venv" / ".complete"
        for name in ("scripts/setup.sh", "requirements.txt", "requirements-crf.txt", "pyproject.toml"):
            self.write(name, (ROOT / name).read_text())
        self.write("common/__init__.py", "")
        note, builds = f'echo "${{0##*/}} $*" >>{folder}/calls.txt', f"[ -e {folder}/builds ]"
        self.write(".venv/bin/uv", f'#!/usr/bin/env bash\n{note}\n[[ "$*" != *requirements-crf* ]] || {builds}\n')
        of_python = f'*requirements-crf*) {note}; {builds} ;;\n -m*) ;;\n *) exec {sys.executable} "$@" ;;'
        self.write(".venv/bin/python", f'#!/usr/bin/env bash\ncase "$*" in\n {of_python}\nesac\n')

    def write(self, name: str, text: str) -> None:
        """Writes a file that can be run."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def __call__(self, **environment: str) -> tuple[list[str], str]:
        """Calls of the installers, and what the script writes to stderr."""
        calls = self.folder / "calls.txt"
        calls.write_text("")
        done = subprocess.run(
            ["bash", "scripts/setup.sh"], cwd=self.folder, env={**os.environ, **environment}, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        assert calls.read_text() or not done.stdout + done.stderr  # a finished set-up says nothing
        return calls.read_text().splitlines(), done.stderr


@pytest.fixture
def setup(tmp_path: Path) -> SetUp:
    return SetUp(tmp_path)


def test_a_finished_set_up_does_nothing(setup: SetUp) -> None:
    setup.write("builds", "")
    assert setup() == (INSTALLS, "")
    assert setup() == ([], "") and setup(CC="/bin/false", CXX="/bin/false") == ([], "")
    setup.write("requirements.txt", "torch==0.1\n")
    assert setup() == (INSTALLS, "")


def test_set_up_is_complete_without_a_compiler(setup: SetUp) -> None:
    """One line says what is missing; only a change of the tools is a reason to try again."""
    calls, said = setup(CC="/bin/false", CXX="/bin/false")
    assert calls[:3] == INSTALLS and len(said.splitlines()) == 1
    for words in ("pydensecrf2 could not be built", "lattice", "same labels", "install a C++ compiler"):
        assert words in said
    assert (setup.folder / ".venv" / "pydensecrf2.log").is_file()
    assert setup(CC="/bin/false", CXX="/bin/false") == ([], "")

    calls, said = setup()  # another compiler, in vain
    assert CRF in calls and "could not be built" in said
    assert setup() == ([], "")

    setup.write("bin/c++", "")
    setup.write("builds", "")
    path = f"{setup.folder / 'bin'}:{os.environ['PATH']}"
    assert setup(PATH=path) == (INSTALLS, "")
    assert not (setup.folder / ".venv" / "pydensecrf2.log").exists()
    assert setup(PATH=path) == setup() == ([], "")  # there, whatever becomes of the compiler


def test_an_interrupted_set_up_goes_on(setup: SetUp) -> None:
    setup.write("builds", "")
    setup()
    setup.stamp.unlink()
    assert setup() == (INSTALLS, "") and setup.stamp.is_file()
