"""The start of a script: what is said before anything heavy is loaded, the run folder, the configuration's type."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mypy.api
import pytest

from common.run.config import load_config
from common.run.errors import UserError
from common.run.folder import EPOCH_FILE, RunFolder
from common.run.script import MASKS, PREPARATION, REFINEMENT, SEEDS, TRAINING, Setup, Usage, start
from methods.cti.config import CTIConfig
from tests.datasets import write_lines

Start = Callable[..., Setup[CTIConfig]]


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts a script of a kind in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for folder in ("VOC2012/JPEGImages", "COCO2014/train2014"):
        (tmp_path / "data" / folder).mkdir(parents=True)

    def run(usage: Usage, *arguments: str, inputs: tuple[str, ...] = ()) -> Setup[CTIConfig]:
        monkeypatch.setattr(sys, "argv", ["script.py", "--name", "x", *arguments])
        reads = ("data", "runtime") if usage in (PREPARATION, REFINEMENT) else None
        return start("What it does.", CTIConfig, "cti_cvpr24", usage, reads=reads, inputs=inputs)

    return run


MISTAKES = {
    "--help": "SystemExit", "--name x train.lr=1": "UserError", "--name ../x": "UserError", "--name x": "UserError",
    "--name x --load_pretrained f --crf": "UserError",
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "raised"), MISTAKES.items())
def test_the_command_line_is_judged_before_torch_is_imported(arguments: str, raised: str, tmp_path: Path) -> None:
    """Help, and errors of configuration, run folder and flags, cost no more than the modules they are made of."""
    program = f"""
import sys
from dataclasses import dataclass
from typing import ClassVar
from common.run.config import option, section
from common.run.script import SEEDS, start

@dataclass
class Data:
    root: str = option("x", "Folder.")

@dataclass
class Config:
    method: ClassVar[str] = "own"
    data: Data = section(Data)

sys.argv = ["script.py", *{arguments.split()!r}]
(lambda file: open(file, "w").close())("own.yaml")
try:
    start("What it does.", Config, "own.yaml", SEEDS)
except BaseException as error:
    assert type(error).__name__ == {raised!r}, error
    assert not {{"torch", "tensorboard", "cv2"}} & set(sys.modules)
else:
    raise AssertionError("nothing was raised")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("key", "is_right"), [("image_list", True), ("image_lsit", False)])
def test_a_misspelt_key_is_an_error_of_the_type_checker(key: str, is_right: bool, tmp_path: Path) -> None:
    """``config`` is of the class that a script starts with; only the modules between are read, not torch."""
    snippet = tmp_path / "snippet.py"
    names = f"from {start.__module__} import start\nfrom {CTIConfig.__module__} import CTIConfig\n"
    snippet.write_text(f'{names}print(start("", CTIConfig, "cti_cvpr24").config.train.{key})\n')
    section = type(CTIConfig().train)
    modules = {part.__module__ for part in (start, load_config, CTIConfig, *section.__mro__)}
    files = [str(sys.modules[name].__file__) for name in sorted(modules - {"builtins"})]
    options = "--config-file=", f"--cache-dir={tmp_path}/cache", "--follow-imports=skip", "--ignore-missing-imports"
    said, problem, _ = mypy.api.run([*options, str(snippet), *files])
    assert not problem
    errors = [line for line in said.splitlines() if line.startswith(f"{snippet}:")]
    found = [line for line in errors if f'"{section.__name__}" has no attribute "{key}"' in line]
    assert len(errors) == len(found) == (0 if is_right else 1), said


def test_where_the_configuration_comes_from(begin: Start) -> None:
    """A new training: --exp; a resumed one: the run; other scripts: --exp, else the run, else the default."""
    assert begin(TRAINING, "--exp", "cti_coco_cvpr24").config.data.dataset == "coco14"
    assert begin(PREPARATION).config.data.dataset == "voc12"
    assert not Path("experiment").exists()
    Path("own/images").mkdir(parents=True)
    lists = ["train: {image_list: all, val_list: all}", "infer: {image_list: all, eval_list: all}"]
    write_lines(RunFolder("x").config, ["data: {dataset: folder, root: own}", *lists])
    write_lines(RunFolder("x").last, [])
    write_lines(RunFolder("x").checkpoints / EPOCH_FILE.format(0), [])
    for usage, *flags in ((TRAINING, "--resume"), (PREPARATION,), (REFINEMENT,), (SEEDS,), (MASKS,)):
        setup = begin(usage, *flags)
        assert (setup.config.data.dataset, setup.run.name) == ("folder", "x")
        assert setup.runtime.processes is setup.processes
    for usage in (PREPARATION, REFINEMENT, SEEDS, MASKS):
        assert begin(usage, "--exp", "cti_coco_cvpr24").config.data.dataset == "coco14"
    assert begin(SEEDS, "train.epochs=3").config.train.epochs == 3  # not shown in its help, but accepted


def test_a_run_that_must_be_there(begin: Start) -> None:
    write_lines(Path("file.pth"), [])
    for usage in (REFINEMENT, SEEDS, MASKS):
        with pytest.raises(UserError, match="no run folder experiment/x"):
            begin(usage)
        assert begin(usage, "--load_pretrained", "file.pth").config.data.dataset == "voc12"
    with pytest.raises(UserError, match="no run folder experiment/x"):
        begin(TRAINING, "--resume")
    Path("experiment/x").mkdir(parents=True)
    with pytest.raises(UserError, match="nothing to resume"):
        begin(TRAINING, "--resume")
    with pytest.raises(UserError, match="no weights file at lost"):
        begin(SEEDS, "--load_pretrained", "lost.pth")


def test_what_earlier_scripts_wrote_is_no_training(begin: Start) -> None:
    """It is neither refused nor deleted; all else in the folder is, a link without what it leads to."""
    for name in ("labels/a.png", "ckpt/last.pth", "log.txt"):
        write_lines(Path("experiment/x") / name, [])
    Path("elsewhere").mkdir()
    Path("experiment/x/link").symlink_to(Path("elsewhere").absolute())
    with pytest.raises(UserError, match="not empty"):
        begin(TRAINING, inputs=("labels",))
    with pytest.raises(UserError, match="one of them"):
        begin(TRAINING, "--resume", "--overwrite", inputs=("labels",))
    begin(TRAINING, "--overwrite", inputs=("labels",)).run.create(overwrite=True)
    assert [path.name for path in Path("experiment/x").iterdir()] == ["labels"] and Path("elsewhere").is_dir()
    assert begin(TRAINING, inputs=("labels",)).run.path == Path("experiment/x")
    with pytest.raises(UserError, match="not empty"):
        begin(TRAINING)


def test_archives_are_for_voc(begin: Start) -> None:
    """The data set's layout decides."""
    write_lines(Path("file.pth"), [])
    given = "--load_pretrained", "file.pth", "--submission"
    assert begin(MASKS, *given).args.submission == "comp6"
    with pytest.raises(UserError, match="the data set is coco14"):
        begin(MASKS, *given, "--exp", "cti_coco_cvpr24")
