"""The data check: every kind of damage is named and sets the exit code."""

from pathlib import Path

import numpy as np
import pytest

from common.data.dataset import LabelledImages
from common.data.layout import DataConfig
from common.data.masks import write_mask
from common.run.errors import UserError
from tests.datasets import call, make_cub, make_voc, run, truncate, write_image, write_lines

BAD = "PROBLEM"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    make_voc(tmp_path / "VOC2012")
    return tmp_path / "VOC2012"


def _report(monkeypatch, capsys, root: Path, *more: object) -> tuple[int, dict[str, tuple[str, str]], str]:
    """Exit code, the last line of each name as (value, verdict), and the whole text."""
    arguments = (f"data.root={root}", "data.absent_classes=allow", "--workers", 1)
    code = call(monkeypatch, "check_data", *(arguments if "cub" not in more else (arguments[0], *arguments[2:])), *more)
    text = capsys.readouterr().out
    rows = {}
    for line in text.splitlines():
        if line.startswith("  ") and line.rstrip().endswith((" ok", " note", " PROBLEM")):
            rows.setdefault(line[2:44].strip(), tuple(line[44:].split()))
    return code, rows, text


def test_sound_set(voc: Path, monkeypatch, capsys) -> None:
    code, rows, text = _report(monkeypatch, capsys, voc)
    assert code == 0 and "no problems" in text and "PROBLEM" not in text
    assert rows["entries"] == ("6", "ok") and rows["masks"] == ("6", "ok")
    assert "list train" in text and "list val" in text and "official" not in text


@pytest.mark.parametrize(
    ("damage", "row", "verdict"),
    [
        (lambda root, mask: (root / "JPEGImages" / "2007_000002.jpg").unlink(), "missing images", BAD),
        (lambda root, mask: truncate(root / "JPEGImages" / "2007_000002.jpg"), "unreadable images", BAD),
        (lambda root, mask: truncate(mask), "unreadable masks", BAD),
        (lambda root, mask: write_image(mask, (24, 32)), "unreadable masks", BAD),  # colours
        (lambda root, mask: mask.unlink(), "images without a mask, for training only", "note"),
        (lambda root, mask: write_mask(mask, np.full((24, 32), 21)), "masks with values outside 0..20 and 255", BAD),
        (lambda root, mask: write_mask(mask, np.zeros((24, 31))), "image and mask differ in size (H, W)", BAD),
        (lambda root, mask: write_mask(mask, np.full((24, 32), 3)), "masks with a class that the label lacks", "note"),
        (lambda root, mask: write_mask(mask, np.zeros((24, 32))), "labels with a class that the mask lacks", "note"),
    ],
)
def test_damage_is_named(voc: Path, monkeypatch, capsys, damage, row: str, verdict: str) -> None:
    damage(voc, voc / "SegmentationClass" / "2007_000002.png")
    code, rows, text = _report(monkeypatch, capsys, voc)
    assert rows[row] == ("1", verdict)
    assert code == (verdict == BAD)
    if row != "images without a mask, for training only":
        assert "2007_000002" in text


def test_lists(voc: Path, monkeypatch, capsys) -> None:
    ids = [f"2007_{i:06d}" for i in range(1, 7)]
    write_lines(voc / "ImageSets" / "Segmentation" / "train.txt", [*ids, ids[0], "2007_000007"])
    code, rows, _ = _report(monkeypatch, capsys, voc)
    assert code == 1 and rows["duplicate entries"] == ("1", "note") and rows["images in both"] == ("1", "PROBLEM")
    write_lines(voc / "ImageSets" / "Segmentation" / "train.txt", [*ids, "../../../etc/passwd"])
    with pytest.raises(UserError, match=r"line 7.*\.\."):
        _report(monkeypatch, capsys, voc)


def test_missing_val_mask_is_a_problem(voc: Path, monkeypatch, capsys) -> None:
    (voc / "SegmentationClass" / "2007_000007.png").unlink()
    code, _, text = _report(monkeypatch, capsys, voc)
    assert code == 1 and "missing masks, needed for evaluation" in text and "2007_000007.png" in text


def test_unusable_labels_are_a_line(voc: Path, monkeypatch, capsys) -> None:
    (voc / "Annotations" / "2007_000003.xml").unlink()
    code, rows, text = _report(monkeypatch, capsys, voc)
    assert code == 1 and rows["labels"] == ("unusable", "PROBLEM") and "2007_000003.xml" in text


def test_official_counts(voc: Path, monkeypatch, capsys) -> None:
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml"), ("SegmentationClass", "png")):
        (voc / folder / f"2007_000001.{suffix}").rename(voc / folder / f"2007_000032.{suffix}")
    write_lines(voc / "ImageSets" / "Segmentation" / "train.txt", ["2007_000032"])
    code, rows, text = _report(monkeypatch, capsys, voc)
    assert code == 0 and rows["entries of the official train"] == ("1464", "note") and "1463 of them are not" in text
    code, rows, _ = _report(monkeypatch, capsys, voc, "--train_list", "train_aug")
    assert code == 1 and rows["missing images"] == ("10581", "PROBLEM")


def test_folder(tmp_path: Path, monkeypatch, capsys) -> None:
    for i, suffix in enumerate(("jpg", "png")):
        write_image(tmp_path / "images" / f"img_{i}.{suffix}", seed=i)
    write_lines(tmp_path / "labels.csv", ["id,label", "img_0,cat;dog", "img_1,"])
    code, rows, text = _report(monkeypatch, capsys, tmp_path, "data.dataset=folder")
    assert code == 0 and rows["images without any class"] == ("1", "note") and "2 classes" in text
    assert "list val" not in text and rows["rows of the label table without an image"] == ("0", "ok")
    write_lines(tmp_path / "labels.csv", ["id,label", "img_0,cat;dog", "img_1,", "img_7,cat"])
    write_lines(tmp_path / "part.txt", ["img_0"])
    _, rows, _ = _report(monkeypatch, capsys, tmp_path, "data.dataset=folder")
    assert rows["rows of the label table without an image"] == ("1", "note")
    LabelledImages(DataConfig(dataset="folder", root=str(tmp_path)), str(tmp_path / "part.txt")).require_labels()
    assert f"1 row(s) of {tmp_path / 'labels.csv'} are of images that are not there: img_7" in capsys.readouterr().out


# --- CUB


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    return make_cub(tmp_path / "CUB_200_2011")


def test_sound_set_in_cubs_layout(cub: Path, monkeypatch, capsys) -> None:
    code, rows, text = _report(monkeypatch, capsys, cub, "--data", "cub")
    assert code == 0 and "no problems" in text and "CUB-200-2011 at" in text and "3 classes" in text
    assert rows["classes"] == ("3", "note") and "has 200" in text and "has 5994" in text and "has 5794" in text
    assert rows["images"] == ("3", "note") and rows["images of a class, fewest and most"] == ("0,", "2", "ok")
    assert rows["classes without an image"] == ("1", "note")
    assert [line.split()[-2] for line in text.splitlines() if line.startswith("  images  ")] == ["3", "2"]


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


BOXES, LABELS, OUTSIDE = "bounding_boxes.txt", "image_class_labels.txt", "boxes with over 10% outside their image"
GULL = Path("images/002.Gull/Gull_0001_21.jpg")  # 20 x 40 pixels, with the box 4.5 1.0 9.0 20.25


@pytest.mark.parametrize(
    ("damage", "row", "verdict"),
    [
        (lambda root: (root / GULL).unlink(), "missing images", BAD),
        (lambda root: truncate(root / GULL), "unreadable images", BAD),
        (lambda root: write_image(root / GULL, (20, 40)), "boxes that reach over the edge", "note"),
        (lambda root: write_image(root / GULL, (20, 40)), OUTSIDE, "ok"),
        (lambda root: write_image(root / GULL, (40, 12)), OUTSIDE, BAD),
        (lambda root: _edit(root / BOXES, "4.5 1.0", "20 40"), OUTSIDE, BAD),
        (lambda root: _edit(root / BOXES, "4.5 1.0", "-0.5 1.0"), "boxes that reach over the edge", "ok"),
        (lambda root: _edit(root / BOXES, "20.25", "0"), "tables", BAD),
        (lambda root: (root / "classes.txt").unlink(), "tables", BAD),
        (lambda root: _edit(root / LABELS, "3 2", "3 1"), "images in the folder of another class", "note"),
    ],
)  # fmt: skip
def test_damage_of_cub_is_named(cub: Path, monkeypatch, capsys, damage, row: str, verdict: str) -> None:
    damage(cub)
    found: dict[str, list[str]] = {}
    code = call(monkeypatch, "check_data", "--data", "cub", f"data.root={cub}", "--workers", 1)
    text = capsys.readouterr().out
    for line in text.splitlines():
        found.setdefault(line[2:44].strip(), []).append(line.rpartition(" ")[2])
    assert found[row][0] == verdict and code == (verdict == BAD)
    assert verdict == "ok" or "Gull_0001_21" in text or row == "tables"


def test_a_split_without_images(cub: Path, monkeypatch, capsys) -> None:
    write_lines(cub / "train_test_split.txt", [f"{number} 1" for number in range(1, 6)])
    code, rows, text = _report(monkeypatch, capsys, cub, "--data", "cub")
    assert code == 1 and rows["images"] == ("5", "note") and "assigns none to this split" in text


def test_cub_has_its_own_lists_and_labels(cub: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    for more in (("--train_list", "train"), ("data.labels=labels.npz",)):
        with pytest.raises(UserError, match=r"--data cub takes data\.root alone"):
            _report(monkeypatch, capsys, cub, "--data", "cub", *more)
    with pytest.raises(UserError, match=r"prepare_data\.py cub"):
        _report(monkeypatch, capsys, tmp_path / "none", "--data", "cub")


def test_command_line(tmp_path: Path) -> None:
    done = run("check_data", "--data", "coco14", f"data.root={tmp_path / 'none'}")
    assert done.returncode == 1 and "prepare_data.py coco" in done.stderr and "Traceback" not in done.stderr
