"""`evaluation.py` on hand-made masks with known numbers, and on what users feed it by mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from common.data.layout import DataConfig
from common.data.masks import write_mask
from common.data.seeds import write_seed
from common.run.errors import UserError, run_script
from common.run.files import ROOT
from common.run.processes import Processes
from common.score.evaluate import EvalConfig, Scoring, UnusablePredictions, evaluate
from common.score.files import FilePredictions, MaskFiles
from tests.forks import run_together
from tests.helpers import evaluation_script

MASKS = {
    "a": np.array([[0, 0, 1, 1], [0, 255, 1, 1]], np.uint8),
    "b": np.array([[0, 2, 2]], np.uint8),
}
SEEDS = {
    "a": {0: np.array([[0.1, 0.3, 0.5, 0.9], [0.4, 0.9, 0.4, 0.6]], np.float32)},
    "b": {1: np.array([[0.2, 0.8, 0.3]], np.float32)},
}
MIOU_040 = 100 * (4 / 6 + 3 / 4 + 1 / 2) / 3  # counted by hand: at 0.40, where 0.4 is background,
MIOU_035 = 100 * (3 / 5 + 4 / 5 + 1 / 2) / 3
MIOU_BEST = 100 * (2 / 4 + 4 / 6 + 1) / 3  # and at 0.20 to 0.29
COMMAND = ["--name", "x", "--gt_dir", "gt", "--list", "list.txt", "data.classes=classes.txt"]


class Malicious:
    """Unpickling it would make a file."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch executed",)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return evaluation_script()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with masks, a list, classes, and a run ``x`` with seeds."""
    monkeypatch.chdir(tmp_path)
    for name, mask in MASKS.items():
        write_mask(f"gt/{name}.png", mask)
        write_seed("experiment/x/dict", name, SEEDS[name])
    Path("list.txt").write_text("a\nb\n")
    Path("classes.txt").write_text("cat\ndog\n")
    return tmp_path


def result_of(stem: str) -> dict:
    return json.loads(Path(f"experiment/x/{stem}.json").read_text())


def run_as_script(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "evaluation.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_seeds(script: ModuleType, folder: Path, capsys: pytest.CaptureFixture) -> None:
    script.main([*COMMAND, "--task", "cam", "--dict_dir", "dict", "eval.reference_range=[0.3, 0.44]"])
    result = result_of("eval_cam")
    assert result["fixed"]["threshold"] == 0.4 and result["fixed"]["mIoU"] == pytest.approx(MIOU_040)
    assert result["best"]["threshold"] == 0.2 and result["best"]["mIoU"] == pytest.approx(MIOU_BEST)
    assert result["best"]["tuned_on"] == "list.txt" and result["images"] == 2 and result["left_out"] == {}
    assert result["reference_range"]["threshold"] == 0.4
    assert result["reference_range"]["mIoU"] == pytest.approx(MIOU_040)
    assert result["fixed"]["mean_precision"] == pytest.approx(100 * (4 / 6 + 1 + 1) / 3)
    assert result["fixed"]["mean_recall"] == pytest.approx(100 * (1 + 3 / 4 + 1 / 2) / 3)
    assert result["fixed"]["classes"]["cat"] == pytest.approx({"IoU": 75, "precision": 100, "recall": 75})
    assert len(result["thresholds"]) == len(result["mIoU"]) == 100
    assert result["mIoU"][result["thresholds"].index(0.35)] == pytest.approx(MIOU_035)
    rows = Path("experiment/x/eval_cam.csv").read_text().splitlines()
    assert rows[0].startswith("class,IoU_best,precision_best,recall_best,IoU_fixed")
    assert rows[2].split(",")[4] == "75.0000"
    with Image.open("experiment/x/eval_cam.png") as curve:
        assert curve.size[0] > 400
    shown = capsys.readouterr().out
    assert f"40/100 threshold: 0.400\tmIoU: {MIOU_040:.3f}%" in shown and "41/100" not in shown
    assert f"threshold: 0.200 (best of 0.00 to 0.99, tuned on list list.txt)\tmIoU: {MIOU_BEST:.3f}%" in shown
    assert "fixed beforehand" in shown


def test_thresholds_are_configurable_and_the_fixed_one_is_always_among_them(script: ModuleType, folder: Path) -> None:
    script.main([*COMMAND, "--dict_dir", "dict", "--verbose", "--out", "narrow", "eval.thresholds=[0.3, 0.5, 0.1]",
                 "eval.fixed_threshold=0.35"])  # fmt: skip
    result = result_of("narrow")
    assert result["thresholds"] == [0.3, 0.35, 0.4, 0.5]
    assert result["fixed"]["mIoU"] == pytest.approx(MIOU_035)


def as_dictionary(name: str) -> dict[int, np.ndarray]:
    return {0: np.full(MASKS[name].shape, 0.35, np.float32), **{key + 1: cam for key, cam in SEEDS[name].items()}}


def as_labels(name: str) -> np.ndarray:
    ((key, cam),) = SEEDS[name].items()
    return np.where(cam > 0.35, key + 1, 0).astype(np.uint8)


@pytest.mark.parametrize(
    "task, kind",
    [("crf", "dictionary"), ("crf", "labels"), ("dl", "dictionary"), ("dl", "labels"), ("png", "png")],
)
def test_tasks_that_predict_labels(script: ModuleType, folder: Path, task: str, kind: str) -> None:
    for name in MASKS:
        if kind == "dictionary":
            write_seed("experiment/x/out", name, as_dictionary(name))
        elif kind == "labels":
            Path("experiment/x/out").mkdir(exist_ok=True)
            np.save(f"experiment/x/out/{name}.npy", as_labels(name).astype(np.int64))
        else:
            write_mask(f"experiment/x/out/{name}.png", as_labels(name))
    script.main([*COMMAND, "--task", task, "--dict_dir", "out"])
    result = result_of(f"eval_{task}")
    assert result["best"]["mIoU"] == pytest.approx(MIOU_035) and result["best"]["threshold"] is None
    assert "fixed" not in result and not Path(f"experiment/x/eval_{task}.png").exists()


def test_unusable_predictions_are_listed_and_fail(
    script: ModuleType, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    seeds = Path("experiment/x/dict")
    names = {"gone": None, "cut": b"\x93NUMPY\x01\x00", "text": b"no array", "list": [1, 2], "code": Malicious()}
    for name, content in names.items():
        write_mask(f"gt/{name}.png", MASKS["a"])
        if isinstance(content, bytes):
            (seeds / f"{name}.npy").write_bytes(content)
        elif content is not None:
            np.save(seeds / f"{name}.npy", np.array(content, dtype=object), allow_pickle=True)
    write_mask("gt/size.png", MASKS["a"])
    write_seed(seeds, "size", SEEDS["b"])
    bad = [*names, "size"]
    Path("list.txt").write_text("\n".join(["a", *bad, "b"]))
    with pytest.raises(UserError, match="6 of 8 images cannot be scored") as error:
        script.main([*COMMAND, "--dict_dir", "dict"])
    lines = str(error.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == bad
    assert "missing" in lines[0] and "posix" in lines[4] and "(1, 3)" in lines[5]
    assert not Path("executed").exists() and not Path("experiment/x/eval_cam.json").exists()
    assert len(Path("experiment/x/eval_cam_unusable.txt").read_text().splitlines()) == 6

    script.main([*COMMAND, "--dict_dir", "dict", "--allow-missing"])
    result = result_of("eval_cam")
    assert list(result["left_out"]) == bad and result["images"] == 2
    assert result["fixed"]["mIoU"] == pytest.approx(MIOU_040)
    assert "6 images left out" in capsys.readouterr().out
    assert not Path("executed").exists()


def test_nothing_left_to_score_fails_even_if_missing_is_allowed(script: ModuleType, folder: Path) -> None:
    for file in Path("experiment/x/dict").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="2 of 2 images"):
        script.main([*COMMAND, "--dict_dir", "dict", "--allow-missing"])


@pytest.mark.parametrize("arguments, words", [
    (["--dict_dir", "nowhere"], "no folder of predictions"),
    (["--dict_dir", "dict", "--gt_dir", "nowhere"], "no folder of true masks nowhere"),
    (["--dict_dir", "dict", "--list", "no_list"], "no image list 'no_list'"),
    (["--dict_dir", "dict", "--name", "y"], "no run folder.*There are: x"),
    (["--dict_dir", "dict", "--data", "no_data"], "no configuration 'no_data'"),
    (["--dict_dir", "dict", "eval.fixed=0.3"], "unknown configuration key 'eval.fixed'"),
    (["--dict_dir", "dict", "eval.thresholds=[0.3]"], "first, last and step"),
    (["--dict_dir", "dict", "eval.thresholds=[0.1, 0.9, 0]"], "first, last and step"),
    ([], "either --dict_dir"),
    (["--dict_dir", "dict", "--trivial", "background"], "either --dict_dir"),
])  # fmt: skip
def test_wrong_arguments(script: ModuleType, folder: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        script.main([*COMMAND, *arguments])


def test_labels_of_another_data_set_fail_even_if_missing_is_allowed(script: ModuleType, folder: Path) -> None:
    write_seed("experiment/x/dict", "a", {5: SEEDS["a"][0]})
    with pytest.raises(UserError, match=r"classes \[5\]; the data set has 0 to 1"):
        script.main([*COMMAND, "--dict_dir", "dict", "--allow-missing"])
    write_mask("gt/a.png", np.full((2, 4), 20, np.uint8))
    with pytest.raises(UserError, match="mask has label 20"):
        script.main([*COMMAND, "--dict_dir", "dict", "--allow-missing"])


def test_the_data_set_comes_from_the_runs_configuration(script: ModuleType, folder: Path) -> None:
    Path("experiment/x/config.yaml").write_text(
        "data: {dataset: voc12, classes: classes.txt, mask: '../gt/{id}.png', root: experiment, of_the_method: 1}\n"
        "eval: {fixed_threshold: 0.35}\ntrain: {lr: 1}\n"
    )
    script.main(["--name", "x", "--dict_dir", "dict", "--list", "list.txt"])
    assert result_of("eval_cam")["fixed"]["mIoU"] == pytest.approx(MIOU_035)
    Path("experiment/x/config.yaml").write_text("data: {dataset: voc13}\n")
    with pytest.raises(UserError, match=r"config.yaml: .*data.dataset is 'voc13'"):
        script.main(["--name", "x", "--dict_dir", "dict", "--list", "list.txt"])
    Path("other.yaml").write_text("train: {lr: 1}\n")
    with pytest.raises(UserError, match="no section 'data'"):
        script.main(["--name", "x", "--dict_dir", "dict", "--data", "other.yaml"])


def test_the_early_stop_is_written(script: ModuleType, folder: Path) -> None:
    """Into the JSON and the CSV, as the other points; the curve that is stopped is that of the range."""
    arguments = [*COMMAND, "--dict_dir", "dict", "eval.reference_range=[0.3, 0.59]"]
    script.main([*arguments, "eval.early_stop=true"])
    result = result_of("eval_cam")
    curve = [miou for threshold, miou in zip(result["thresholds"], result["mIoU"], strict=True) if threshold > 0.295]
    index = next(i for i in range(30) if curve[i + 1] <= curve[i])
    assert result["early_stop"]["mIoU"] == pytest.approx(curve[index])
    assert result["early_stop"]["threshold"] == pytest.approx(0.3 + index / 100)
    assert set(result["early_stop"]["classes"]) == {"background", "cat", "dog"}
    rows = Path("experiment/x/eval_cam.csv").read_text().splitlines()
    assert rows[0].endswith("IoU_early_stop,precision_early_stop,recall_early_stop")
    assert float(rows[2].split(",")[-3]) == pytest.approx(result["early_stop"]["classes"]["cat"]["IoU"], abs=1e-4)
    script.main(arguments)
    assert "early_stop" not in result_of("eval_cam")


def test_coco_names_masks_by_split(folder: Path) -> None:
    for split in ("train", "val"):
        write_mask(f"masks/{split}2014/COCO_{split}2014_000000000009.png", MASKS["b"])
        Path("one.txt").write_text("9\n")
        masks = MaskFiles(DataConfig(dataset="coco14"), "one.txt", f"masks/{split}2014")
        assert masks.ids == ["000000000009"] and (masks(masks.ids[0]) == MASKS["b"]).all()


def voc_layout() -> list[str]:
    """The same masks with images and annotations; arguments that name them."""
    for name, mask in MASKS.items():
        write_mask(f"voc/SegmentationClass/{name}.png", mask)
        Path("voc/JPEGImages").mkdir(exist_ok=True)
        Image.new("RGB", mask.shape[::-1]).save(f"voc/JPEGImages/{name}.jpg")
        Path("voc/Annotations").mkdir(exist_ok=True)
        objects = {"a": ("cat", "dog"), "b": ("dog",)}[name]
        tags = "".join(f"<object><name>{label}</name></object>" for label in objects)
        Path(f"voc/Annotations/{name}.xml").write_text(f"<annotation>{tags}</annotation>")
    return ["--name", "x", "--list", "list.txt", "data.root=voc", "data.classes=classes.txt"]


def test_trivial_seeds(script: ModuleType, folder: Path) -> None:
    arguments = voc_layout()
    script.main([*arguments, "--trivial", "background"])
    assert result_of("eval_trivial_background")["best"]["mIoU"] == pytest.approx(100 * (4 / 10) / 3)
    script.main([*arguments, "--trivial", "first_label"])  # cat in all of a, dog in all of b
    assert result_of("eval_trivial_first_label")["mIoU"] == pytest.approx([100 * (4 / 7 + 2 / 3) / 3] * 100)


def test_as_a_script_and_in_two_processes(script: ModuleType, folder: Path) -> None:
    """Two processes give what one gives, and say so once; exit code and message of a failure."""
    arguments = [*COMMAND, "--task", "cam", "--dict_dir", "dict"]
    script.main(arguments)
    alone = result_of("eval_cam")
    output = run_together(lambda: run_script(lambda: script.main([*arguments, "--out", "two"])))
    assert f"mIoU: {MIOU_040:.3f}%" in output
    assert result_of("two") == alone and output.count("written:") == 1
    Path("experiment/x/dict/b.npy").unlink()
    failed = run_as_script(*arguments)
    assert failed.returncode == 1 and "1 of 2 images cannot be scored" in failed.stderr
    assert "Traceback" not in failed.stderr


class TwoProcesses(Processes):
    """Both processes of a pair in one: what the other would send is put in by the test."""

    other: Scoring | None = None

    def gather_objects(self, value: object) -> list:
        other = type(self).other
        parts = {type(part): part for part in (other.counts, other.trivial, other.values, other.meaning)}
        return [value, parts.get(type(value), other.problems)]


def test_threads_and_counting_in_memory_give_the_same(folder: Path) -> None:
    masks = MaskFiles(DataConfig(), "list.txt", "gt")
    classes, config = ["cat", "dog"], EvalConfig()
    seeds = FilePredictions(Path("experiment/x/dict"), "cam")
    reference = evaluate(masks.ids, seeds, masks, classes, config, progress=False)
    threaded = evaluate(masks.ids * 20, seeds, masks, classes, config, num_workers=3, progress=False)
    assert (threaded.counts.correct == 20 * reference.counts.correct).all() and threaded.images == 40
    in_memory = evaluate(masks.ids, SEEDS.items(), masks, classes, config)
    assert in_memory.points() == reference.points() and in_memory.images == 2
    shared, TwoProcesses.other = [Scoring("cam", classes, config) for _ in range(2)]
    shared.add("a", SEEDS["a"], MASKS["a"])
    TwoProcesses.other.add("b", SEEDS["b"], MASKS["b"])
    assert shared.result(masks.ids, TwoProcesses(0, 0, 2)).points() == reference.points()


def test_problems_of_predictions_in_memory_are_listed(folder: Path) -> None:
    """Those of all processes, in the order of the list."""
    Path("list.txt").write_text("a\nb\nno_mask\n")
    masks, config = MaskFiles(DataConfig(), "list.txt", "gt"), EvalConfig()
    with pytest.raises(UnusablePredictions, match="1 of 3 images cannot be scored: no_mask: no ground-truth mask"):
        evaluate(masks.ids, [("no_mask", SEEDS["a"]), ("b", SEEDS["a"])], masks, ["cat", "dog"], config)
    own, TwoProcesses.other = [Scoring("cam", ["cat", "dog"], config) for _ in range(2)]
    own.add("b", SEEDS["a"], MASKS["b"])
    TwoProcesses.other.add("a", SEEDS["b"], MASKS["a"])
    with pytest.raises(UnusablePredictions, match=r"2 of 3 images cannot be scored:\n  a: .*\n  b: "):
        own.result(masks.ids, TwoProcesses(0, 0, 2))
