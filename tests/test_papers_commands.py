"""Every command on the page of the papers' commands, given to its script as it stands; its path alone is changed."""

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.run.errors import UserError
from common.run.files import ROOT
from common.run.papers import Instead, translate
from methods.dig.config import require_diffusion
from tests.datasets import write_lines
from tests.helpers import evaluation_script

PAGE = (ROOT / "docs" / "papers_commands.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([^`]+)` \| `([^`]+)`(.*) \|$", PAGE, re.MULTILINE)
PYTHON_ROWS = [row for row in ROWS if not row[0].startswith("bash")]
SHELL_ROWS = [row for row in ROWS if row[0].startswith("bash")]


def split(command: str) -> tuple[str, list[str]]:
    """Script and arguments of a command, without its launcher."""
    words = shlex.split(command)
    place = next(i for i, word in enumerate(words) if word.endswith(".py"))
    return words[place], words[place + 1 :]


def given(script: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], str]:
    """The arguments that a script is left with, by flag or configuration key, and its error."""
    seen: list[argparse.Namespace] = []
    parse = argparse.ArgumentParser.parse_intermixed_args

    def keep(parser: argparse.ArgumentParser, *arguments: Any) -> argparse.Namespace:
        found = parse(parser, *arguments)
        seen.append(argparse.Namespace(**vars(found)))
        return found

    monkeypatch.setattr(argparse.ArgumentParser, "parse_intermixed_args", keep)
    monkeypatch.setattr(sys, "argv", [str(ROOT / script), *words])
    module = (
        evaluation_script() if script == "evaluation.py" else importlib.import_module(script[:-3].replace("/", "."))
    )
    with pytest.raises(UserError) as error:
        module.main()
    values = vars(seen[0]) if seen else {}
    keys = dict(text.split("=", 1) for text in values.pop("overrides", []))
    flags = {name.removeprefix("flag:"): value for name, value in values.items() if value is not None}
    for name, value in flags.items():
        if isinstance(value, list):  # a flag of several values takes the key=value after it, too
            keys |= dict(text.split("=", 1) for text in value if "=" in text)
            flags[name] = [text for text in value if "=" not in text]
    return {**flags, **keys}, str(error.value)


@pytest.mark.parametrize(("old", "new", "note"), PYTHON_ROWS, ids=[row[0][:70] for row in PYTHON_ROWS])
def test_a_paper_s_command_means_the_line_beside_it(
    old: str, new: str, note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both give the script the same arguments; only data, weights or a run are missing. Or its error is that line."""
    monkeypatch.chdir(tmp_path)
    script, words = split(new)
    _, literal = split(old)
    if "has to be named" in note:
        literal += words[words.index("--exp") :]
    if "torch.distributed.launch" in old:
        literal.insert(0, "--local-rank=0")  # as it starts a script
    wanted, missing = given(script, words, monkeypatch)
    found, error = given(script, literal, monkeypatch)
    if "is the answer" in note:
        assert error.endswith(f". The line here: python {script} {shlex.join(words)}")
    else:
        assert found == wanted and error == missing
    beginnings = r"\d+ things are missing:|no (run folder|PASCAL VOC|MS COCO|CUB-200)"
    assert re.match(beginnings, missing) or "'N' of type" in missing, missing
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("old", "new", "note"), SHELL_ROWS, ids=[row[0][:40] for row in SHELL_ROWS])
def test_the_shell_scripts(old: str, new: str, note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They start scripts with arguments that these take; a wrong call is one line."""
    assert shlex.split(old)[2:] == shlex.split(new)[2:]
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": "echo"}
    done = subprocess.run(shlex.split(new), cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    monkeypatch.chdir(tmp_path)
    for line in done.stdout.splitlines():
        script, words = split(line)
        assert f"--nproc_per_node {2 if '0,1' in old else 1} " in line
        values, error = given(script, words, monkeypatch)
        assert values["model.deit.arch" if "model.deit.arch" in line else "name"]
        assert "no CUB-200-2011 at" in error or "no run folder experiment/wsol_small" in error
    wrong = subprocess.run(shlex.split(new)[:3], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: give GPUs, deit,")


def test_all_methods_are_on_the_page() -> None:
    """Those with a paper, and every row is one of the kinds that are tested."""
    assert re.findall(r"^## (\w+)", PAGE, re.MULTILINE) == ["CTI", "PCSS", "DiG", "CRT", "ToCo", "DeepLab", "PSA"]
    assert len(ROWS) == PAGE.count("\n| `") >= 38


def test_how_a_command_line_is_translated(capsys: pytest.CaptureFixture) -> None:
    """Values of real flags are left alone; each replacement is said once, a value that is not possible is refused."""
    paper = {
        "--old": Instead("new.key={}"), "test": Instead(takes=0), "--list": Instead(takes=-1, reason="of no use"),
        "--opt": Instead(only=("adamw",), reason="AdamW it is"), "--out": Instead(names_run=True),
    }  # fmt: skip
    line = ["test", "--infer", "test", "--old", "a b", "--list", "1", "2", "--infer=x", "--opt=adamw"]
    wanted = ["--infer", "test", "new.key=a b", "--infer=x"]
    assert translate(line, {"--infer": None}, paper, "x.py") == translate(line, {"--infer": None}, paper, "x.py")
    assert translate(line, {"--infer": None}, paper, "x.py") == wanted
    said = capsys.readouterr().out
    assert said.count("note: --old 'a b' means 'new.key=a b' here\n") == 1
    assert said.count("note: --list 1 2 is left out: of no use\n") == 1
    for place, name in (("a/b/", "b"), ("runs/x/checkpoints/last.pth", "x"), ("toco_vit-b.pth", "toco_vit-b")):
        assert translate(["--out", place], {}, paper, "x.py") == ["--name", name]
    assert translate(["--out", "a", "--name", "b"], {}, paper, "x.py") == ["--name", "b"]
    with pytest.raises(UserError, match="--opt sgd: AdamW it is; here --opt can only be adamw"):
        translate(["--opt", "sgd"], {}, paper, "x.py")
    with pytest.raises(UserError, match="--old needs a value"):
        translate(["--old"], {}, paper, "x.py")


def test_the_released_diffusion_model_by_any_of_its_names(tmp_path: Path) -> None:
    """The papers' code and page spell it differently; the name that is given comes first."""
    for ending in (".ptht.pth", ".pth", ".pt"):
        file = write_lines(tmp_path / ending[1:] / f"model-140-pascal{ending}", [])
        for asked in (".pt", ".pth", ".ptht.pth"):
            assert require_diffusion(file.with_name(f"model-140-pascal{asked}")) == file
    both = write_lines(tmp_path / "pt" / "model-140-pascal.pth", [])
    assert require_diffusion(both) == both
    with pytest.raises(UserError, match="no diffusion model at"):
        require_diffusion(tmp_path / "other.pt")
