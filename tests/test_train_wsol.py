"""CRT's localisation from training to scores. (Exact resume, two processes, a used folder: tests/test_training.py.)"""

import csv
import json
import shutil
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from common.run.errors import UserError
from common.run.weights import load_torch
from methods.crt.localization import OUTCOMES, PERCENTAGES
from tests.datasets import call
from tests.helpers import Scripts, last, metrics
from tests.reports import data_of, picture_at, smooth_plane_of

FILES = ("002net_trm.pth", "best.pth", "best_loc.pth")


@pytest.fixture(scope="module")
def whole(experiments: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An uninterrupted run and its evaluation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        scripts, said = Scripts(patch, experiments / "wsol.yaml", "wsol"), []
        assert scripts.train("whole") == 0
        patch.setattr("builtins.print", lambda *values, **options: said.append(" ".join(map(str, values))))
        assert scripts.infer("whole", "--vis") == 0
        folder = Path("experiment/whole").absolute()
        return SimpleNamespace(last=last("whole"), metrics=metrics("whole"), folder=folder, said="\n".join(said))


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiments: Path) -> Scripts:
    """The scripts, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Scripts(monkeypatch, experiments / "wsol.yaml", "wsol")


def test_a_run(whole: SimpleNamespace) -> None:
    """Losses by the schedule, three validations on the test split, and the weights that are kept."""
    train = [line for line in whole.metrics if line["kind"] == "train"]
    assert [line["step"] for line in train] == [2, 4, 6, 8, 9]
    assert [line["epoch"] for line in train] == [0, 1, 1, 2, 2]
    for line in train:
        classes = line["cls_cnn"] + line["cls_deit"]
        if line["step"] == 4:  # the mean of a step without the consistency loss and one with it
            assert classes < line["total"] < classes + line["consistency"]
        else:
            expected = classes + (line["consistency"] if line["epoch"] else 0)
            assert line["total"] == pytest.approx(expected, rel=1e-5) and line["consistency"] > 0
        assert line["lr"] == pytest.approx(1e-4 if line["epoch"] == 2 else 1e-3)
        assert 0 <= line["accuracy_cnn"] <= 1 and 0 <= line["accuracy_deit"] <= 1
    rounds = [line for line in whole.metrics if line["kind"] == "validation"]
    assert [line["step"] for line in rounds] == [3, 6, 9]
    assert whole.last["position"]["best"] == max(line["val_gt_known"] for line in rounds)
    assert whole.last["best_loc"]["value"] == max(line["val_loc_top1"] for line in rounds)
    assert {path.name for path in (whole.folder / "ckpt").iterdir()} == {"last.pth", *FILES}
    assert [group["lr"] for group in whole.last["optimizer"]["constant"]["param_groups"]] == [0.01, 0.1]
    log = (whole.folder / "log.txt").read_text()
    assert "24 images, 6 classes, 3 steps an epoch" in log and "RANDOM weights" in log
    assert f"epoch 2: test: GT-known {rounds[2]['val_gt_known']:.2f}, Loc@1 " in log
    assert "Scores: python methods/crt/eval_wsol.py --name whole" in log


def recount(root: Path, boxes: Path, side: int) -> dict[str, float]:
    """All scores from a file of boxes and the tables of the data set, with nothing of the project's code."""
    tables = {
        name: [line.split() for line in (root / f"{name}.txt").read_text().splitlines()]
        for name in ("images", "classes", "image_class_labels", "train_test_split", "bounding_boxes")
    }
    names, classes = dict(tables["images"]), dict(tables["classes"])
    label_of = {key: classes[label] for key, label in tables["image_class_labels"]}
    truth = {}
    for (key, *box), (_, trains) in zip(tables["bounding_boxes"], tables["train_test_split"], strict=True):
        if trains == "0":
            with Image.open(root / "images" / names[key]) as image:
                x, y, w, h = (int(float(value)) for value in box)
                corners = (x, 0, 0), (y, 0, 1), (x + w, 0, 0), (y + h, 0, 1)
                scaled = [int(min(max(value / image.size[axis] * side, 0), side - 1)) for value, _, axis in corners]
            truth[Path(names[key]).stem] = label_of[key], scaled
    rows = defaultdict(list)
    with boxes.open() as file:
        for row in csv.DictReader(file):
            rows[row["id"]].append(row)
    assert rows.keys() == truth.keys()
    counts = dict.fromkeys([*PERCENTAGES, *(f"top1_{name}" for name in OUTCOMES)], 0)
    for name, found in rows.items():
        label, (left, top, right, bottom) = truth[name]
        measured = []
        for row in found:
            x1, y1, x2, y2 = (int(row[key]) for key in ("x1", "y1", "x2", "y2"))
            width, height = min(x2, right) - max(x1, left) + 1, min(y2, bottom) - max(y1, top) + 1
            common = max(width, 0) * max(height, 0)
            own, true = (x2 - x1 + 1) * (y2 - y1 + 1), (right - left + 1) * (bottom - top + 1)
            iou = common / (own + true - common)
            assert float(row["iou"]) == pytest.approx(iou, abs=1e-6)
            assert (row["class"] == label) == (row["is_true"] == "1")
            measured.append((row["class"] == label, row["rank"], iou, common / true, common / own))
        assert [row[1] for row in measured[:5]] == ["1", "2", "3", "4", "5"] and sum(row[0] for row in measured) == 1
        true_row = next(row for row in measured if row[0])
        is_first, _, iou, iog, iob = measured[0]
        counts["cls_top1"] += is_first
        counts["cls_top5"] += true_row[1] != ""
        counts["loc_top1"] += is_first and iou > 0.5
        counts["loc_top5"] += true_row[1] != "" and true_row[2] > 0.5
        counts["gt_known"] += true_row[2] >= 0.5
        parts = {"class": not is_first, "right": iou > 0.5, "part": iob > 0.5, "more": iog >= 0.7, "wrong": True}
        counts[f"top1_{next(name for name, holds in parts.items() if holds)}"] += 1
    return {name: 100 * count / len(rows) for name, count in counts.items()}


def test_scores_equal_a_recount(whole: SimpleNamespace, cub_shapes: Path) -> None:
    """Those of the best, the best-locating and the last weights, also as the training saw them; and what is said."""
    content = json.loads((whole.folder / "eval_wsol.json").read_text())
    assert (content["list"], content["images"], content["classes"], content["cam_threshold"]) == ("test", 12, 6, 0.4)
    assert list(content["weights"]) == ["best", "best_loc", "last"]
    assert [result["chosen_on"] for result in content["weights"].values()] == ["test", "test", None]
    for name, result in content["weights"].items():
        expected = recount(cub_shapes, whole.folder / f"boxes_{name}.csv", 32)
        assert {key: result[key] for key in expected} == pytest.approx(expected)
        assert (whole.folder / f"wsol_{name}.png").is_file()
    rounds = [line for line in whole.metrics if line["kind"] == "validation"]
    assert content["weights"]["best"]["gt_known"] == max(line["val_gt_known"] for line in rounds)
    assert content["weights"]["best_loc"]["loc_top1"] == max(line["val_loc_top1"] for line in rounds)
    final = content["weights"]["last"]
    assert 0 < final["loc_top5"] <= final["gt_known"] < 100 and 0 < final["cls_top1"] < 100
    assert {f"val_{name}": final[name] for name in PERCENTAGES}.items() <= rounds[-1].items()
    lines = whole.said.splitlines()
    row = next(line for line in lines if line.startswith("best GT-known (chosen on test)"))
    assert float(row.split()[-1]) == pytest.approx(content["weights"]["best"]["gt_known"], abs=0.01)
    assert any(line.startswith("last: right ") for line in lines)


def box_around(inside: np.ndarray) -> list[int]:
    """The box around the outline that encloses the largest area."""
    outlines = cv2.findContours(inside.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    x, y, width, height = cv2.boundingRect(max(outlines, key=cv2.contourArea))
    return [x, y, x + width, y + height]


def test_the_report_has_the_boxes_of_every_threshold(whole: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its boxes are those around its regions, and at the evaluation's threshold those of the table."""
    monkeypatch.chdir(whole.folder.parent.parent)
    assert call(monkeypatch, "report", "--name", "whole", "--against", "whole:eval_wsol:best") == 0
    html = (whole.folder / "report.html").read_bytes()
    data = data_of(html)
    scores = json.loads((whole.folder / "eval_wsol.json").read_text())["weights"]
    last, best = data["runs"]
    assert (last["shownWeights"], best["shownWeights"]) == ("last", "best")
    assert [row["name"] for row in last["weights"]] == ["best", "best_loc", "last"]
    for run, name in ((last, "last"), (best, "best")):
        assert {key: entry["value"] for key, entry in run["means"].items()}.items() <= scores[name].items()
        assert sum(row["images"] for row in run["classes"]) == 12
    (compared,) = data["comparison"]
    assert compared["means"]["gt_known"][0] == pytest.approx(scores["best"]["gt_known"] - scores["last"]["gt_known"])
    assert last["curve"][40] == pytest.approx(scores["last"]["gt_known"]) and last["threshold"] == 0.4
    with (whole.folder / "boxes_last.csv").open() as file:
        table = {row["id"]: row for row in csv.DictReader(file) if row["is_true"] == "1"}
    assert {entry["id"] for entry in data["images"]} == table.keys()
    for entry in data["images"]:
        row, own = table[entry["id"]], entry["runs"][0]
        number = smooth_plane_of(picture_at(html, own["number"]))
        assert number.shape == (entry["side"], entry["side"]) == (32, 32)
        at_all = [next(box for box in reversed(own["boxes"]) if box[0] <= index) for index in range(100)]
        for index in range(0, 100, 9):
            assert at_all[index][1:5] == box_around(number > index)
        assert at_all[40][1:5] == [int(row[key]) for key in ("x1", "y1", "x2", "y2")]
        assert at_all[40][5] == pytest.approx(100 * float(row["iou"]), abs=0.051)
        assert entry["scores"][0]["iou"] == pytest.approx(100 * float(row["iou"]), abs=0.006)
        assert data["labels"][entry["scores"][0]["labels"][0]] == row["class"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("whole:eval_wsol:first", r"no weights 'first'; there are: best, best_loc, last"),
        ("bare", r"no file of boxes experiment/bare/boxes_last\.npz; score the localisation again"),
        ("torn", r"boxes_last\.npz is damaged or no file of boxes"),
        ("odd", r"eval_wsol\.json holds no scores of a localisation"),
    ],
)
def test_a_report_without_usable_boxes(
    whole: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for run in ("whole", "bare", "torn", "odd"):
        shutil.copytree(whole.folder, Path("experiment") / run, ignore=shutil.ignore_patterns("ckpt", "report.html"))
    Path("experiment/bare/boxes_last.npz").unlink()
    content = Path("experiment/torn/boxes_last.npz").read_bytes()
    Path("experiment/torn/boxes_last.npz").write_bytes(content[: len(content) // 2])
    Path("experiment/odd/eval_wsol.json").write_text('{"weights": {"last": {"gt_known": "high"}}}')
    with pytest.raises(UserError, match=message):
        call(monkeypatch, "report", "--name", name)
    assert not list(Path("experiment").glob("*/report.html"))


def test_two_processes_score_like_one(scripts: Scripts, whole: SimpleNamespace) -> None:
    """Boxes and scores, bitwise."""
    weights = ("--load_pretrained", whole.folder / "ckpt" / "last.pth")
    output = scripts.together(scripts.infer, "shared", *weights)
    assert output.count("12 images of 'test'") == 1
    assert scripts.infer("alone", *weights) == 0
    for name in ("eval_wsol.json", "boxes_last.csv"):
        assert Path("experiment/shared", name).read_bytes() == Path("experiment/alone", name).read_bytes()


def test_weights_of_another_origin_and_of_an_epoch(
    scripts: Scripts, whole: SimpleNamespace, capsys: pytest.CaptureFixture
) -> None:
    """A released file holds the DeiT alone, under names with a prefix, beside other things; needs no run."""
    state = load_torch(whole.folder / "ckpt" / "002net_trm.pth")
    deit = {f"module.{name[5:]}": value for name, value in state.items() if name.startswith("deit.")}
    torch.save({"epoch": 19, "state_dict": deit, "best_map": 0.9}, "model_best.pth")
    assert scripts.infer("x", "--load_pretrained", "model_best.pth") == 0
    assert Path("experiment/x/boxes_model_best.csv").read_bytes() == (whole.folder / "boxes_last.csv").read_bytes()
    content = json.loads(Path("experiment/x/eval_wsol.json").read_text())
    assert content["weights"]["model_best"]["chosen_on"] is None
    state["deit.head.weight"] = state["deit.head.weight"][:5]
    torch.save(state, "other.pth")
    with pytest.raises(UserError, match=r"other\.pth does not fit this model.*Another number of classes"):
        scripts.infer("y", "--load_pretrained", "other.pth")
    assert not Path("experiment/y").exists()
    assert scripts.train("z", "train.max_steps=1") == 0
    capsys.readouterr()
    assert scripts.infer("z", "--load_epo", "0", "--cam_thr", "0.5", "eval.image_list=train") == 0
    content = json.loads(Path("experiment/z/eval_wsol.json").read_text())
    assert (content["list"], content["images"], content["cam_threshold"]) == ("train", 24, 0.5)
    assert list(content["weights"]) == ["epoch_0"] and "epoch_0" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no checkpoint .*There are epochs 0 to 0"):
        scripts.infer("z", "--load_epo", "7")


@pytest.mark.parametrize("setting", ["runtime.precision=bf16", "train.accumulation=2", "train.drop_last=true"])
def test_other_settings(scripts: Scripts, setting: str) -> None:
    """They train; the weights stay float32, and the incomplete batch can be left out."""
    assert scripts.train("x", "train.epochs=1", setting) == 0
    assert {value.dtype for value in last("x")["model"].values() if value.is_floating_point()} == {torch.float32}
    assert last("x")["position"]["total_steps"] == (2 if "drop_last" in setting else 3)


def test_a_script_that_cannot_start_leaves_nothing(scripts: Scripts) -> None:
    """No data, a crop that does not fit, a last batch that is too small for the processes: what to do."""
    for wrong, words in (
        (("data.root=nothing",), "no CUB-200-2011 at nothing"),
        (("views.resize=30",), "views.resize=30 leaves no room"),
        (("train.batch_size=23", "train.accumulation=23"), "has 1 of train.batch_size=23 images.*train.drop_last=true"),
        (("eval.cam_threshold=1",), "eval.cam_threshold is 1.0; it must be from 0 to below 1"),
        (("train.val_list=val",), "no split 'val'; its splits are train, test"),
    ):
        with pytest.raises(UserError, match=words):
            scripts.train("x", *wrong)
    with pytest.raises(UserError, match="no run folder"):
        scripts.infer("x")
    assert not Path("experiment").exists()
