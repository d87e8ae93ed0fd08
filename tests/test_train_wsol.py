"""CRT's localisation from training to scores; interrupted anywhere, a run goes on exactly."""

import csv
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image

from common.run.errors import UserError
from common.run.weights import load_torch
from methods.crt import eval_wsol, train_wsol
from methods.crt.localization import OUTCOMES, PERCENTAGES
from tests.helpers import TORCHRUN, Scripts, assert_same, last, metrics

TRAIN, EVAL = "methods/crt/train_wsol.py", "methods/crt/eval_wsol.py"
# Three epochs of 3 steps, the third of 4 images instead of 10; the consistency loss in epochs 1 and 2, a smaller
# learning rate in the last; validation after each.
TINY = {
    "views": {"resize": 36},
    "model": {
        "deit": {
            "pretrained": "none", "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2,
            "drop_path": 0.3,
        },
        "cnn": {"arch": "resnet18", "blocks": [1, 1, 1, 1], "pretrained": "none"},
    },
    "loss": {"period": 2},
    "optim": {"lr": 1e-3, "decay_epochs": 3, "cnn_lr": 0.01},
    "train": {"epochs": 3, "batch_size": 10, "print_freq": 2},
    "eval": {"batch_size": 5, "cam_threshold": 0.4},
    "runtime": {"num_workers": 0, "device": "cpu"},
}  # fmt: skip
FILES = ("002net_trm.pth", "best.pth", "best_loc.pth")


class WSOLScripts(Scripts):
    """Training and evaluation in the current folder, with the tiny experiment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, experiment: Path) -> None:
        self._patch, self._experiment, self._train, self._infer = monkeypatch, experiment, train_wsol, eval_wsol


@pytest.fixture(scope="module")
def experiment(cub_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of the tiny experiment."""
    path = tmp_path_factory.mktemp("experiment") / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, "data": {"root": str(cub_shapes)}}))
    return path


@pytest.fixture(scope="module")
def whole(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An uninterrupted run and its evaluation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        scripts, said = WSOLScripts(patch, experiment), []
        assert scripts.train("whole") == 0
        patch.setattr("builtins.print", lambda *values, **options: said.append(" ".join(map(str, values))))
        assert scripts.infer("whole", "--vis") == 0
        folder = Path("experiment/whole").absolute()
        return SimpleNamespace(last=last("whole"), metrics=metrics("whole"), folder=folder, said="\n".join(said))


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: Path) -> WSOLScripts:
    """The scripts, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return WSOLScripts(monkeypatch, experiment)


def test_a_run(whole: SimpleNamespace) -> None:
    """Losses by the schedule, three validations on the test split, and the weights that are kept."""
    train = [line for line in whole.metrics if line["kind"] == "train"]
    assert [line["step"] for line in train] == [2, 3, 4, 6, 8, 9]
    assert [line["epoch"] for line in train] == [0, 0, 1, 1, 2, 2]
    for line in train:
        expected = line["cls_cnn"] + line["cls_deit"] + (line["consistency"] if line["epoch"] else 0)
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


@pytest.mark.parametrize(("step", "workers"), [(3, 0), (5, 1), (9, 0)])
def test_a_resumed_run_ends_bitwise_like_an_uninterrupted_one(
    scripts: WSOLScripts, whole: SimpleNamespace, interrupt: Callable, step: int, workers: int
) -> None:
    """Stopped inside an epoch, at its end, at the end of all: both optimisers, all kept weights, every log line."""
    interrupt(step)
    assert scripts.train("x", f"runtime.num_workers={workers}") == 143
    assert last("x")["position"]["total_steps"] == step
    interrupt(0)
    assert scripts.train("x", "--resume") == 0
    assert_same(last("x"), whole.last)
    assert_same(metrics("x"), whole.metrics)
    for file in FILES:
        assert_same(load_torch(f"experiment/x/ckpt/{file}"), load_torch(whole.folder / "ckpt" / file), file)


def test_a_validation_that_failed_comes_first_in_the_resumed_run(
    scripts: WSOLScripts, whole: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps before it are not lost, and the best weights are those of an undisturbed run."""
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk"):
        patch.setattr("methods.crt.wsol_scoring.locate", lambda *arguments: (_ for _ in ()).throw(OSError("disk")))
        scripts.train("x")
    assert last("x")["position"]["total_steps"] == 3 and last("x")["best_loc"]["value"] == -1
    assert scripts.train("x", "--resume") == 0
    assert_same(last("x"), whole.last)
    assert_same(metrics("x"), whole.metrics)


def test_two_processes_train_and_score_like_one(scripts: WSOLScripts) -> None:
    """The same global batches, the incomplete one included: weights and log to float tolerance; scores bitwise."""
    fixed = ("model.deit.drop_path=0", "train.epochs=2", "optim.eps=1e-3", "train.print_freq=1", "optim.lr=0.01")
    code, output, errors = scripts.run(TRAIN, "two", *fixed, "train.accumulation=1", launcher=TORCHRUN)
    assert code == 0, errors
    assert output.count("done: 6 steps") == 1 and "2 x cpu" in output
    assert scripts.train("one", *fixed) == 0
    one, two = last("one"), last("two")
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-3, atol=1e-4, msg=name)
    for line, other in zip(metrics("one"), metrics("two"), strict=True):
        for name in {"total", "cls_cnn", "cls_deit", "consistency"} & line.keys():
            assert other[name] == pytest.approx(line[name], rel=1e-3), name
    weights = Path("experiment/one/ckpt/last.pth").absolute()
    code, output, errors = scripts.run(EVAL, "shared", "--load_pretrained", weights, launcher=TORCHRUN)
    assert code == 0, errors
    assert output.count("12 images of 'test'") == 1
    assert scripts.infer("alone", "--load_pretrained", weights) == 0
    for name in ("eval_wsol.json", "boxes_last.csv"):
        assert Path("experiment/shared", name).read_bytes() == Path("experiment/alone", name).read_bytes()


def test_weights_of_another_origin_and_of_an_epoch(
    scripts: WSOLScripts, whole: SimpleNamespace, capsys: pytest.CaptureFixture
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
def test_other_settings(scripts: WSOLScripts, setting: str) -> None:
    """They train; the weights stay float32, and the incomplete batch can be left out."""
    assert scripts.train("x", "train.epochs=1", setting) == 0
    assert {value.dtype for value in last("x")["model"].values() if value.is_floating_point()} == {torch.float32}
    assert last("x")["position"]["total_steps"] == (2 if "drop_last" in setting else 3)


def test_a_script_that_cannot_start_leaves_nothing(scripts: WSOLScripts) -> None:
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
