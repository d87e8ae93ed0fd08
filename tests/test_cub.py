"""CUB-200-2011's layout: the reader and its errors, and the small data set that is made in it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from common.data.augment import SeparateViews, square_view
from common.data.cub import TABLES, CUBConfig, CUBImages, read_tables
from common.data.loader import EpochBatches, TrainViews, train_loader
from common.run.errors import UserError
from tests.datasets import call, make_cub, script, truncate, write_image

SMALL = ("--train", 24, "--test", 12, "--size", 48, "--workers", 2)  # as the fixture `cub_shapes`


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    return make_cub(tmp_path / "CUB_200_2011")


def _open(root: Path, split: str = "train") -> CUBImages:
    return CUBImages(CUBConfig(str(root)), split)


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# --- reader


def test_a_split_is_read(cub: Path) -> None:
    train, test = _open(cub, "train"), _open(cub, "test")
    assert train.ids == ["Wren_0001_11", "Gull_0001_21", "Gull_0002_22"] and train.list_name == "train"
    assert test.ids == ["Wren_0002_12", "Great_Auk_0001_31"] and len(test) == 2
    assert train.classes == test.classes == ["001.Wren", "002.Gull", "003.Great_Auk"]
    assert train.targets.tolist() == [0, 1, 1] and train.targets.dtype == np.int64
    assert train.labels.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]] and train.labels.dtype == np.float32
    assert train.boxes.tolist() == [[2, 3, 10, 8], [4.5, 1, 9, 20.25], [1, 2, 3, 4]]
    assert train.boxes.dtype == np.float32 and test.boxes.shape == (2, 4)
    assert train.images[1] == cub / "images" / "002.Gull" / "Gull_0001_21.jpg"
    assert train.load_image(1).size == (20, 40) and train.load_image(1).mode == "RGB"


def test_lines_in_another_order_say_the_same(cub: Path) -> None:
    before = _open(cub)
    for name in TABLES[1:]:
        (cub / name).write_text("\r\n".join(reversed((cub / name).read_text().splitlines())) + "\r\n\r\n")
    after = _open(cub)
    assert after.ids == before.ids and after.classes == before.classes
    assert (after.targets == before.targets).all() and (after.boxes == before.boxes).all()


def test_names_may_hold_spaces(cub: Path) -> None:
    _edit(cub / "classes.txt", "003.Great_Auk", "003.Great Auk")
    _edit(cub / "images.txt", "Great_Auk_0001_31", "Great Auk 1")
    write_image(cub / "images" / "003.Great_Auk" / "Great Auk 1.jpg")
    assert _open(cub, "test").ids == ["Wren_0002_12", "Great Auk 1"] and _open(cub).classes[2] == "003.Great Auk"


def test_it_stands_in_for_an_image_set_in_training(cub: Path) -> None:
    images = _open(cub)
    views = TrainViews(images, SeparateViews(square_view(16)), seed=3)
    batches = EpochBatches(len(images), 3, seed=3)
    [((view,), label, index)] = list(train_loader(views, batches, 0, False))
    assert view.shape == (3, 3, 16, 16) and sorted(index.tolist()) == [0, 1, 2]
    assert torch.equal(label, torch.from_numpy(images.labels)[index])


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("images.txt", "1 001.Wren/Wren_0001_11.jpg", "1", r"line 1 \('1'\): 1 column"),
        ("images.txt", "1 001", "x 001", r"line 1 .*'x' is no id"),
        ("images.txt", "1 001", "0 001", "'0' is no id"),
        ("images.txt", "2 001", "1 001", "line 2 .*1 has a line already"),
        ("images.txt", "001.Wren/Wren_0001", "../001.Wren/Wren_0001", r"line 1 .*\.\."),
        ("images.txt", "001.Wren/Wren_0001", "/etc/Wren_0001", "no path of an image under images/"),
        ("images.txt", "_11.jpg", "_11.jpg 7", "no path of an image under images/"),
        ("images.txt", "_11.jpg", "_11.txt", "no path of an image under images/"),
        ("images.txt", "002.Gull/Gull_0001_21", "002.Gull/Wren_0001_11", "share their results: Wren_0001_11"),
        ("classes.txt", "3 003", "4 003", "class ids must be 1 to 3"),
        ("classes.txt", "003.Great_Auk", "001.Wren", "a name of its own"),
        ("image_class_labels.txt", "3 2", "3 4", "1 class id.* not in classes.txt.*1 to 3: image 3 has 4"),
        ("image_class_labels.txt", "3 2", "3 0", "'0' is no id"),
        ("image_class_labels.txt", "3 2", "3 2 1", "'2 1' is no id"),
        ("image_class_labels.txt", "3 2", "9 2", "1 image id.* that images.txt does not have: 9"),
        ("image_class_labels.txt", "3 2\n", "", r"no line for 1 of the 5 images: 3 \(002.Gull/Gull_0001_21.jpg\)"),
        ("train_test_split.txt", "3 1", "3 2", "neither 1 .training. nor 0 .test."),
        ("train_test_split.txt", "3 1\n", "", "no line for 1 of the 5 images"),
        ("train_test_split.txt", "3 1\n", "3 1\n3 0\n", "3 has a line already"),
        ("bounding_boxes.txt", "3 4.5 1.0 9.0 20.25\n", "", "no line for 1 of the 5 images"),
        ("bounding_boxes.txt", "3 4.5 1.0 9.0", "3 4.5 1.0", "line 3 .*4 column"),
        ("bounding_boxes.txt", "20.25", "20.25 7", "no 'image_id x y width height'"),
        ("bounding_boxes.txt", "20.25", "0.0", "width and height above 0"),
        ("bounding_boxes.txt", "20.25", "-3", "width and height above 0"),
        ("bounding_boxes.txt", "20.25", "nan", "width and height above 0"),
        ("bounding_boxes.txt", "20.25", "tall", "line 3 .*tall"),
    ],
)
def test_damaged_tables_are_named(cub: Path, table: str, old: str, new: str, message: str) -> None:
    _edit(cub / table, old, new)
    for split in ("train", "test"):
        with pytest.raises(UserError, match=message) as caught:
            _open(cub, split)
        assert str(cub / table) in str(caught.value)


@pytest.mark.parametrize("name", TABLES)
def test_missing_empty_and_binary_tables(cub: Path, name: str) -> None:
    for content, message in ((b"", f"{name} is empty"), (b"1 \xff\xfe", f"{name} is not UTF-8 text")):
        (cub / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_tables(cub)
    (cub / name).unlink()
    with pytest.raises(UserError, match=f"no {name} in .*prepare_data.py cub"):
        read_tables(cub)


def test_all_wrong_lines_are_counted(cub: Path) -> None:
    (cub / "train_test_split.txt").write_text("".join(f"{number} maybe\n" for number in range(1, 8)))
    with pytest.raises(UserError, match=r"has 7 line\(s\).*line 1.*line 5.* and 2 more"):
        _open(cub)


def test_what_is_missing_is_named_with_its_remedy(cub: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no CUB-200-2011 at .*prepare_data\.py cub.*data\.root"):
        _open(tmp_path / "none")
    with pytest.raises(UserError, match="no split 'val'; its splits are train, test"):
        _open(cub, "val")
    (cub / "images" / "002.Gull" / "Gull_0002_22.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of the 3 images of the split 'train'.*Gull_0002_22\.jpg.*--data cub"):
        _open(cub)
    assert len(_open(cub, "test")) == 2 and len(CUBImages(CUBConfig(str(cub)), "train", require_images=False)) == 3
    truncate(cub / "images" / "003.Great_Auk" / "Great_Auk_0001_31.jpg")
    with pytest.raises(UserError, match=r"Great_Auk_0001_31\.jpg cannot be decoded"):
        _open(cub, "test").load_image(1)
    (cub / "train_test_split.txt").write_text("".join(f"{number} 0\n" for number in range(1, 6)))
    with pytest.raises(UserError, match="no image to the split 'train'"):
        _open(cub)


# --- the set that is made in this layout


@pytest.mark.parametrize(("split", "count"), [("train", 24), ("test", 12)])
def test_made_set_has_every_class_and_tight_boxes(cub_shapes: Path, split: str, count: int) -> None:
    images = _open(cub_shapes, split)
    assert len(images) == count and np.bincount(images.targets).tolist() == [count // 6] * 6
    for index, (x, y, width, height) in enumerate(images.boxes):
        pixels = np.asarray(images.load_image(index), dtype=np.float32)  # H W 3
        assert pixels.shape[0] != pixels.shape[1] and max(pixels.shape) <= 48
        assert min(x, y) >= 0 and x + width <= pixels.shape[1] and y + height <= pixels.shape[0]
        assert images.images[index].parent.name == images.classes[images.targets[index]]
        colourful = np.ptp(pixels, axis=2) > 90  # the grounds are dull
        rows, columns = np.flatnonzero(colourful.any(axis=1)), np.flatnonzero(colourful.any(axis=0))
        seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert np.abs(seen - (x, y, x + width, y + height)).max() <= 6, images.ids[index]


def test_trivial_boxes_find_few_objects() -> None:
    """At IoU 0.5: the whole image, and the best box of one size in the middle."""
    maker = script("make_cub_shapes")
    plan = maker.Plan(train=1, test=1, size=64, seed=3)
    drawn = [maker.make_picture(plan, "test", number, number % 6) for number in range(150)]
    sides = np.array([pixels.shape[1::-1] for pixels, _ in drawn], dtype=float)  # N 2
    boxes = np.array([box for _, box in drawn], dtype=float)  # N 4
    found = {}
    for share in (0.4, 0.5, 0.6, 0.7, 1.0):
        low, high = sides * (1 - share) / 2, sides * (1 + share) / 2
        overlap = (np.minimum(high, boxes[:, 2:]) - np.maximum(low, boxes[:, :2])).clip(0).prod(1)
        union = (high - low).prod(1) + (boxes[:, 2:] - boxes[:, :2]).prod(1) - overlap
        found[share] = (overlap / union >= 0.5).mean()
    assert found[1.0] < 0.10 and max(found.values()) < 0.40


def test_same_seed_same_bytes_other_seed_other_pictures(cub_shapes: Path, tmp_path: Path, monkeypatch) -> None:
    call(monkeypatch, "make_cub_shapes", "--root", tmp_path / "again", *SMALL[:-1], 1)
    contents = _contents(tmp_path / "again")
    assert contents == _contents(cub_shapes)
    pictures = [content for name, content in contents.items() if name.endswith(".jpg")]
    assert len(set(pictures)) == len(pictures) == 36
    call(monkeypatch, "make_cub_shapes", "--root", tmp_path / "other", *SMALL, "--seed", 1)
    assert not set(pictures) & set(_contents(tmp_path / "other").values())


def _interrupt(root: Path) -> None:
    _edit(root / ".make_cub_shapes.json", "true", "false")
    (root / "bounding_boxes.txt").unlink()


def _lose(root: Path) -> None:
    next((root / "images").glob("*/*.jpg")).unlink()


@pytest.mark.parametrize("damage", [_interrupt, _lose])
def test_second_run_completes_or_leaves_alone(cub_shapes: Path, tmp_path: Path, monkeypatch, capsys, damage) -> None:
    root = tmp_path / "set"
    call(monkeypatch, "make_cub_shapes", "--root", root, *SMALL)
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    call(monkeypatch, "make_cub_shapes", "--root", root, *SMALL)
    assert "already" in capsys.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    damage(root)
    call(monkeypatch, "make_cub_shapes", "--root", root, *SMALL)
    assert _contents(root) == _contents(cub_shapes)


def test_foreign_folder_is_refused_and_never_emptied(tmp_path: Path, monkeypatch) -> None:
    few = ("--train", 6, "--test", 1, "--size", 32, "--workers", 2)
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="not empty"):
        call(monkeypatch, "make_cub_shapes", "--root", tmp_path, *SMALL)
    call(monkeypatch, "make_cub_shapes", "--root", tmp_path, *SMALL, "--overwrite")
    with pytest.raises(UserError, match="not empty"):
        call(monkeypatch, "make_cub_shapes", "--root", tmp_path, *few)
    call(monkeypatch, "make_cub_shapes", "--root", tmp_path, *few, "--overwrite")
    assert (tmp_path / "mine.txt").read_text() == "keep me"
    assert len(_open(tmp_path)) == 6 and len(list((tmp_path / "images").glob("*/*.jpg"))) == 7


@pytest.mark.parametrize(("flag", "value"), [("--size", 8), ("--test", 0), ("--seed", -1)])
def test_impossible_numbers_are_refused(tmp_path: Path, monkeypatch, flag: str, value: int) -> None:
    with pytest.raises(UserError, match=flag):
        call(monkeypatch, "make_cub_shapes", "--root", tmp_path / "x", flag, value)
    assert not (tmp_path / "x").exists()
