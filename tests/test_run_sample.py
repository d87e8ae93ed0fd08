"""CRT's one command: its steps in order, their switches, what is skipped, and the table. (The README's runs it all.)"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.data.lists import read_list
from common.pipeline.stages import Stage
from common.run.config import load_config
from common.run.errors import UserError
from methods.crt import run_sample
from methods.crt.config import CRTConfig
from tests.datasets import write_lines

SCRIPTS = [
    "methods/crt/train_cam.py", "methods/crt/make_cam.py", "evaluation.py", "methods/irn/make_ir_label.py",
    "methods/irn/train_irn.py", "methods/irn/infer_irn.py", "evaluation.py",
]  # fmt: skip
Call = Callable[..., int]


@pytest.fixture
def stages() -> list[Stage]:
    """What the last call was to carry out."""
    return []


@pytest.fixture
def call(shapes: Path, tmp_path: Path, stages: list[Stage], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls the command for a run ``x`` in an empty folder; no step is run."""
    monkeypatch.chdir(tmp_path)

    def carry_out(wanted: list[Stage], nproc: int, state_file: Path) -> int:
        stages[:] = wanted
        state_file.write_text(json.dumps({"stages": {stage.title: {"seconds": 1.0} for stage in wanted}}))
        return 0

    monkeypatch.setattr("common.pipeline.builders.carry_out", carry_out)
    data = (
        f"data.root={shapes}",
        f"data.classes={shapes}/classes.txt",
        "--infer_list",
        "train",
        "--train_list",
        "train",
    )

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["run_sample.py", "--name", "x", *data, *map(str, arguments)])
        return run_sample.main()

    return run


def test_all_steps_in_order(call: Call, stages: list[Stage]) -> None:
    """Every script is called with settings that its configuration has."""
    assert call() == 0
    assert [stage.script for stage in stages] == SCRIPTS
    names = [dict(zip(stage.arguments, stage.arguments[1:], strict=False))["--name"] for stage in stages]
    assert names == ["x_cam", "x_cam", "x_cam", "x_irn", "x_irn", "x_irn", "x_irn"]
    seeds = [stage.arguments[stage.arguments.index("--seeds") + 1] for stage in (stages[3], stages[5])]
    assert seeds == ["experiment/x_cam/dict", "experiment/x_cam/cam"]  # labels from the large maps, walk from the small
    assert [stage.arguments[stage.arguments.index("--task") + 1] for stage in (stages[2], stages[6])] == ["cam", "png"]
    assert load_config(CRTConfig, Path("experiment/x/run_sample.yaml")).infer.image_list == "train"


@pytest.mark.parametrize("number", range(len(SCRIPTS)), ids=list(run_sample.STEPS))
def test_a_switch_turns_its_step_off(call: Call, stages: list[Stage], number: int) -> None:
    name = list(run_sample.STEPS)[number]
    assert call(f"--{name}_pass", "False") == 0
    assert [stage.title for stage in stages] == [run_sample.STEPS[key] for key in run_sample.STEPS if key != name]
    assert call(f"--{name}_pass", "True") == 0  # in the reference it would be off
    assert len(stages) == len(SCRIPTS)


def test_a_switch_takes_nothing_else(call: Call) -> None:
    with pytest.raises(UserError, match="'maybe' is neither True nor False"):
        call("--train_irn_pass", "maybe")


def test_what_is_complete(call: Call, stages: list[Stage], shapes: Path) -> None:
    """A step is complete with its last file, not before."""
    ids = read_list(shapes / "ImageSets" / "Segmentation" / "train.txt", "voc12")
    assert call("train.epochs=3") == 0
    train, make, score, label, irn, walk, last = stages
    results = {
        train: ["x_cam/ckpt/002net_trm.pth"], make: [f"x_cam/{name}/{i}.npy" for i in ids for name in ("dict", "cam")],
        label: [f"x_irn/ir_label/{i}.png" for i in ids], irn: ["x_irn/ckpt/002res50_irn.pth"],
        walk: [f"x_irn/masks/{i}.png" for i in ids],
    }  # fmt: skip
    for stage, files in results.items():
        for file in files:
            assert not stage.is_complete(), stage.title
            write_lines(Path("experiment") / file, [])
        assert stage.is_complete(), stage.title
    for stage, file in ((score, "x_cam/eval_cam.json"), (last, "x_irn/eval_png.json")):
        assert not stage.is_complete()
        (Path("experiment") / file).write_text('{"list": "val"}')
        assert not stage.is_complete()
        (Path("experiment") / file).write_text('{"list": "train"}')
        assert stage.is_complete()


def test_the_table(call: Call, capsys: pytest.CaptureFixture) -> None:
    """Gains are those over the seeds at their best threshold."""
    for file, best, fixed in (("x_cam/eval_cam.json", 60.0, 58.0), ("x_irn/eval_png.json", 70.0, 70.0)):
        points = {name: {"threshold": 0.2, "mIoU": value} for name, value in (("best", best), ("fixed", fixed))}
        write_lines(Path("experiment") / file, [json.dumps({"list": "train", "images": 24, **points})])
    assert call() == 0
    rows = json.loads(Path("experiment/x/run_sample.json").read_text())["table"]
    assert [(row["stage"], row["gain"]) for row in rows] == [
        ("seeds, best threshold", 0.0), ("seeds, fixed threshold", -2.0), ("masks (irn)", 10.0),
    ]  # fmt: skip
    assert "+10.00" in capsys.readouterr().out


def test_the_paper_s_command(call: Call, stages: list[Stage], shapes: Path) -> None:
    assert call("--voc12_root", shapes, "--infer_list", "val", "infer.eval_list=val", "--cam_num_epoches", 4) == 0
    assert "infer.image_list=val" in stages[5].arguments and f"data.root={shapes}" in stages[5].arguments


def test_nothing_is_scored_without_a_list(call: Call, stages: list[Stage]) -> None:
    """Masks are made of data without true ones; IRN's displacement is then that of the images with seeds."""
    assert call("infer.eval_list=") == 0
    assert [stage.script for stage in stages] == [name for name in SCRIPTS if name != "evaluation.py"]
    assert "train.displacement_list=train" in stages[3].arguments
    assert json.loads(Path("experiment/x/run_sample.json").read_text())["table"] == []


def test_images_that_get_no_seeds_are_not_scored(call: Call) -> None:
    with pytest.raises(UserError, match=r"infer\.eval_list=val has 6 images that are not in infer\.image_list=train"):
        call("infer.eval_list=val")
    with pytest.raises(UserError, match="at least one process"):
        call("--nproc", 0)
