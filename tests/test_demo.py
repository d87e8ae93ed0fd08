"""The scripts/demo*.sh and their tables, cheaply: the demos themselves take minutes."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.masks import write_mask
from common.data.seeds import write_seed
from common.run.config import config_path, load_config
from common.run.errors import UserError
from common.run.files import ROOT
from methods.dig.config import DiGConfig
from methods.dig.diffusion_config import DiffusionConfig
from tests.datasets import call, write_image, write_lines

SHELL = [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"]
FILES = {"eval_cam": 60.0, "eval_trivial_background": 10.0, "eval_trivial_first_label": 13.0}


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run ``x`` in a working directory of its own, with the three results."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "experiment" / "x"
    folder.mkdir(parents=True)
    for stem, score in FILES.items():
        write_result(folder / f"{stem}.json", score)
    return folder


def write_result(path: Path, score: float, images: int = 200) -> None:
    points = {name: {"threshold": 0.15, "mIoU": score - lower} for name, lower in (("best", 0), ("fixed", 2))}
    task = "png" if "png" in path.name else "cam"
    path.write_text(json.dumps({"task": task, "list": "val", "images": images, **points}))


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_shell_scripts_are_sound(path: Path) -> None:
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    text = path.read_text()
    assert text.startswith("#!/usr/bin/env bash\n") and "set -euo pipefail" in text


DEMO_STEPS = (
    "scripts/make_shapes.py", "methods/{method}/{train}", "methods/{method}/{infer}", "evaluation.py", "evaluation.py",
    "evaluation.py", "scripts/show_seeds.py", "scripts/report.py", "scripts/seed_table.py",
)  # fmt: skip
SCRIPTS = {"cti": ("train_trm.py", "infer_trm.py"), "pcss": ("train_pcss.py", "infer_pcss.py")}
SCORED = ("methods/dig/infer_trm.py", "evaluation.py", "evaluation.py", "evaluation.py")
SHOWN = ("scripts/run_pipeline.py", *["evaluation.py"] * 3, "scripts/show_masks.py", "scripts/show_masks.py")
VOTED = ("scripts/make_segments.py", "methods/segments/vote.py", "evaluation.py")
STEPS_OF = {
    "demo_dig.sh": (
        "scripts/make_shapes.py", "methods/dig/train_diffusion.py", "methods/dig/train_trm.py",
        "methods/dig/train_trm.py", *SCORED, *SCORED, "scripts/show_seeds.py", "scripts/report.py",
        "scripts/seed_table.py", "scripts/seed_table.py",
    ),
    "demo_toco.sh": (
        "scripts/make_shapes.py", "methods/toco/train_toco.py", "methods/toco/infer_seg.py",
        "methods/toco/infer_cam.py", *["evaluation.py"] * 5, "scripts/show_masks.py",
        "scripts/plot_run.py", "scripts/report.py", "scripts/seed_table.py", "scripts/seed_table.py",
    ),
    "demo_pipeline.sh": (
        "scripts/make_shapes.py", "methods/cti/train_trm.py", "methods/cti/infer_trm.py", "methods/cti/infer_trm.py",
        "evaluation.py", "evaluation.py", *SHOWN, *SHOWN, *SHOWN, "scripts/report.py", "scripts/pipeline_table.py",
    ),
    "demo_best.sh": (
        "methods/cti/infer_trm.py", "methods/pcss/infer_pcss.py", "evaluation.py", "evaluation.py",
        *VOTED, *VOTED, *VOTED, "scripts/prepare_data.py", *VOTED[1:], "scripts/fuse_seeds.py", "evaluation.py",
        *VOTED[1:],
        "scripts/show_segments.py", "scripts/run_pipeline.py",
        *["evaluation.py"] * 5, "scripts/show_masks.py", "scripts/report.py", "scripts/compare_runs.py",
        "scripts/compare_runs.py",
    ),
    "demo_crt.sh": (
        "scripts/make_shapes.py", "methods/crt/run_sample.py", *["evaluation.py"] * 4,
        "scripts/show_seeds.py", "scripts/show_masks.py", "scripts/report.py", "scripts/seed_table.py",
        "scripts/pipeline_table.py",
    ),
    "demo_wsol.sh": (
        "scripts/make_cub_shapes.py", "methods/crt/train_wsol.py", "scripts/plot_run.py", "methods/crt/eval_wsol.py",
        "scripts/report.py",
    ),
}  # fmt: skip
FAILURES = (  # a demo, what fails in it, after how many calls
    ("demo_dig.sh", "'diffusion' in sys.argv[1]", 2),
    ("demo_dig.sh", "'--W' in sys.argv", 4),  # the run without a diffusion model
    ("demo_dig.sh", "'--margin' in sys.argv", 16),
    ("demo_toco.sh", "'--margin' in sys.argv", 14),
    ("demo_pipeline.sh", "'pipeline_demo_psa' in sys.argv", 13),
    ("demo_pipeline.sh", "'--gain' in sys.argv", 26),
    ("demo_best.sh", "'--require' in sys.argv", 30),
    ("demo_crt.sh", "'--margin' in sys.argv", 10),
    ("demo_crt.sh", "'--gain' in sys.argv", 11),
    ("demo_wsol.sh", "'--least' in sys.argv", 5),  # the report shows which boxes are wrong
)


@pytest.mark.parametrize("method", SCRIPTS)
def test_the_demo_calls_scripts_that_are_there(tmp_path: Path, method: str) -> None:
    train, infer = SCRIPTS[method]
    done, called = run_demo(tmp_path, "0", "demo.sh", method)
    assert done == 0
    assert called == [step.format(method=method, train=train, infer=infer) for step in DEMO_STEPS]
    assert all((ROOT / script).is_file() for script in called)
    assert (ROOT / "configs" / f"{method}_demo.yaml").is_file()


def test_an_unknown_demo_names_those_there_are(tmp_path: Path) -> None:
    assert run_demo(tmp_path, "0", "demo.sh", "nothing") == (2, [])


@pytest.mark.parametrize(("demo", "steps"), STEPS_OF.items(), ids=STEPS_OF)
def test_the_other_demos_call_scripts_that_are_there(tmp_path: Path, demo: str, steps: tuple[str, ...]) -> None:
    assert run_demo(tmp_path, "0", demo) == (0, list(steps))
    assert all((ROOT / script).is_file() for script in steps)


@pytest.mark.parametrize(("demo", "fails", "calls"), FAILURES)
def test_a_failing_step_ends_a_demo(tmp_path: Path, demo: str, fails: str, calls: int) -> None:
    """A margin that is too small, too."""
    assert run_demo(tmp_path, fails, demo) == (1, list(STEPS_OF[demo][:calls]))


def test_the_demo_of_the_pipeline_makes_masks_of_some_images(tmp_path: Path) -> None:
    assert run_demo(tmp_path, "0", "demo_pipeline.sh")[0] == 0
    lines = (tmp_path / "data" / "shapes" / "ImageSets" / "Segmentation" / "train_300.txt").read_text().splitlines()
    assert lines == [str(number) for number in range(300)]


def test_the_demo_of_dig_uses_the_diffusion_model_that_it_trains() -> None:
    """The last milestone, of a network and for images of the same size."""
    trained = load_config(DiffusionConfig, config_path("diffusion_dig_demo"))
    guided = load_config(DiGConfig, config_path("dig_demo"))
    last = math.ceil(trained.train.max_steps / trained.train.save_every)
    assert guided.diffusion.file == f"experiment/dig_demo_diffusion/ckpt/model-{last}.pt"
    assert (guided.unet, guided.model.img_size) == (trained.unet, trained.views.size)
    assert guided.data.root == trained.data.root
    assert min(guided.loss.weights) > 0 and guided.loss.cam_start_epoch < guided.train.epochs  # all five losses


def run_demo(folder: Path, fails: str, script: str, *arguments: str) -> tuple[int, list[str]]:
    """A demo's exit code and the scripts it calls, with a python that only says so, and fails where ``fails``."""
    (folder / "scripts").mkdir()
    write_lines(folder / "data" / "shapes" / "ImageSets" / "Segmentation" / "train.txt", range(400))
    for method in SCRIPTS:  # what scripts/demo_best.sh starts from
        write_lines(folder / "experiment" / f"{method}_demo" / "eval_cam_card.json", ["{}"])
    (folder / "scripts" / script).write_text((ROOT / "scripts" / script).read_text())
    (folder / "scripts" / "setup.sh").write_text("exit 0\n")
    (folder / ".venv" / "bin").mkdir(parents=True)
    python = folder / ".venv" / "bin" / "python"
    said = f"import sys\nprint('called', sys.argv[1], file=open('called.txt', 'a'))\nsys.exit({fails})\n"
    python.write_text(f"#!{sys.executable}\n{said}")
    python.chmod(0o755)
    command = ["bash", f"scripts/{script}", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    called = folder / "called.txt"
    return done.returncode, [line.split()[1] for line in called.read_text().splitlines()] if called.is_file() else []


def test_table(run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert call(monkeypatch, "seed_table", "--name", "x", "--margin", 35) == 0
    shown = capsys.readouterr().out
    assert [line.split()[-1] for line in shown.splitlines()[1:]] == ["60.00", "58.00", "10.00", "13.00", "47.00"]


def test_too_small_a_margin_fails(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "seed_table", "--name", "x", "--margin", 47) == 0
    assert call(monkeypatch, "seed_table", "--name", "x", "--margin", 47.1) == 1


def test_table_of_masks(run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Those before the CRF are held against the trivial ones; seeds play no part."""
    (run_folder / "eval_cam.json").unlink()
    with pytest.raises(UserError, match="run evaluation"):
        call(monkeypatch, "seed_table", "--name", "x", "--masks")
    write_result(run_folder / "eval_png.json", 30.0)
    assert call(monkeypatch, "seed_table", "--name", "x", "--masks", "--margin", 17) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]] == [
        "30.00",
        "10.00",
        "13.00",
        "17.00",
    ]
    write_result(run_folder / "eval_png_crf.json", 40.0)
    assert call(monkeypatch, "seed_table", "--name", "x", "--masks", "--margin", 17.1) == 1
    assert "masks after the CRF" in capsys.readouterr().out


def test_results_of_other_images_are_not_compared(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_result(run_folder / "eval_trivial_background.json", 10.0, images=199)
    with pytest.raises(UserError, match="different images"):
        call(monkeypatch, "seed_table", "--name", "x")


@pytest.mark.parametrize("content", ["", "[]", '{"best": {}}', '{"best": 3, "fixed": 4}'])
def test_a_damaged_result_is_named(run_folder: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    (run_folder / "eval_cam.json").write_text(content)
    with pytest.raises(UserError, match=r"eval_cam\.json"):
        call(monkeypatch, "seed_table", "--name", "x")
    (run_folder / "eval_cam.json").unlink()
    with pytest.raises(UserError, match="run evaluation"):
        call(monkeypatch, "seed_table", "--name", "x")


def test_contact_sheet(run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    root = Path("set")
    for name in ("a", "b", "c"):
        write_image(root / "JPEGImages" / f"{name}.jpg")
    write_mask(root / "SegmentationClass" / "a.png", np.ones((24, 32), np.uint8))
    write_lines(root / "ImageSets" / "Segmentation" / "val.txt", ["a", "b", "c"])
    write_lines(root / "classes.txt", ["cat"])
    write_lines(root / "labels.csv", ["id,cat", "a,1", "b,1", "c,0"])
    (run_folder / "config.yaml").write_text(
        f"data: {{dataset: voc12, root: {root}, classes: {root}/classes.txt, labels: {root}/labels.csv}}\n"
        "loss: {other: 1}\n"
    )
    seed = {0: np.linspace(0, 1, 24 * 32, dtype=np.float32).reshape(24, 32)}
    write_seed(run_folder / "dict", "a", seed)
    write_seed(run_folder / "dict", "c", {})
    assert call(monkeypatch, "show_seeds", "--name", "x", "--count", 2) == 0
    assert "2 images at threshold 0.15" in capsys.readouterr().out  # the first and the last
    with Image.open(run_folder / "seeds_val.png") as image:
        assert image.width > 4 * 240
    with pytest.raises(UserError, match="no seed of b"):
        call(monkeypatch, "show_seeds", "--name", "x", "--count", 3)

    for name in ("a", "c"):
        write_mask(run_folder / "segs" / "val" / f"{name}.png", np.ones((24, 32), np.uint8))
    assert call(monkeypatch, "show_masks", "--name", "x", "--masks", "segs/val", "--count", 2) == 0
    assert "contact sheet of 2 images" in capsys.readouterr().out
    with Image.open(run_folder / "masks_val.png") as image:
        assert image.width > 3 * 240  # image, true mask where there is one, mask
    with pytest.raises(UserError, match="no mask of b"):
        call(monkeypatch, "show_masks", "--name", "x", "--masks", "segs/val", "--count", 3)


def test_a_failing_step_ends_the_demo(tmp_path: Path) -> None:
    """Nothing after it runs."""
    done, called = run_demo(tmp_path, "'train' in sys.argv[1]", "demo.sh")
    assert done == 1
    assert called == ["scripts/make_shapes.py", "methods/cti/train_trm.py"]
