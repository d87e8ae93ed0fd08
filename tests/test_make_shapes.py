"""The demo data set: layout, contents, determinism, what happens on a second run."""

from pathlib import Path

import numpy as np
import pytest

from common.data.dataset import DataConfig, LabelledImages
from common.run.errors import UserError
from tests.datasets import call, run, script

SMALL = ("--train", 24, "--val", 6, "--size", 48, "--workers", 2)  # as the fixture `shapes`


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _open(root: Path, name: str) -> LabelledImages:
    return LabelledImages(DataConfig(root=str(root), classes=str(root / "classes.txt")), name)


@pytest.mark.parametrize(("name", "count"), [("train", 24), ("val", 6)])
def test_is_a_voc_data_set_with_agreeing_labels(shapes: Path, name: str, count: int) -> None:
    images = _open(shapes, name)
    assert len(images) == count and len(images.classes) >= 6
    for i in range(count):
        image, mask = images.load_image(i), images.load_mask(i)
        assert mask.shape == (image.height, image.width)
        assert all(side % 8 == 0 and 36 <= side <= 60 for side in image.size)
        present = set(np.unique(mask)) - {0, 255}
        assert 1 <= len(present) <= 3
        assert present == set(np.flatnonzero(images.labels[i]) + 1)
        assert 0 < (mask == 255).mean() < 0.2


def test_trivial_predictions_score_low() -> None:
    make_shapes = script("make_shapes")
    plan = make_shapes.Plan(train=200, val=0, size=64, multiple=8, seed=3)
    masks = [make_shapes.make_scene(plan, "train", i).mask for i in range(1, 201)]
    pixels = np.concatenate([mask[mask < 255] for mask in masks])
    first = np.concatenate([np.full((mask < 255).sum(), mask[(mask > 0) & (mask < 255)].min()) for mask in masks])
    assert 0.68 < (pixels == 0).mean() < 0.80
    for prediction in (np.zeros_like(pixels), first):
        pairs = [(prediction == k, pixels == k) for k in range(7)]
        assert 100 * np.mean([(p & t).sum() / (p | t).sum() for p, t in pairs]) < 16


def test_same_seed_same_bytes_other_seed_other_pictures(shapes: Path, tmp_path: Path, monkeypatch) -> None:
    call(monkeypatch, "make_shapes", "--root", tmp_path / "again", *SMALL[:-1], 1)
    assert _contents(tmp_path / "again") == _contents(shapes)
    call(monkeypatch, "make_shapes", "--root", tmp_path / "other", *SMALL, "--seed", 1)
    name = "JPEGImages/2026_000001.jpg"
    assert _contents(tmp_path / "other")[name] != _contents(shapes)[name]


def test_second_run_leaves_a_complete_set_alone(shapes: Path, monkeypatch, capsys) -> None:
    before = {path: path.stat().st_mtime_ns for path in shapes.rglob("*")}
    call(monkeypatch, "make_shapes", "--root", shapes, *SMALL)
    assert "already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in shapes.rglob("*")}


def test_interrupted_set_is_completed(shapes: Path, tmp_path: Path, monkeypatch) -> None:
    root = tmp_path / "shapes"
    call(monkeypatch, "make_shapes", "--root", root, *SMALL)
    stamp = root / ".make_shapes.json"
    stamp.write_text(stamp.read_text().replace("true", "false"))
    (root / "JPEGImages" / "2026_000003.jpg").unlink()
    call(monkeypatch, "make_shapes", "--root", root, *SMALL)
    assert _contents(root) == _contents(shapes)


def test_foreign_folder_is_refused_and_never_emptied(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="not empty"):
        call(monkeypatch, "make_shapes", "--root", tmp_path, *SMALL)
    call(monkeypatch, "make_shapes", "--root", tmp_path, *SMALL, "--overwrite")
    assert (tmp_path / "mine.txt").read_text() == "keep me"
    call(monkeypatch, "make_shapes", "--root", tmp_path, "--train", 3, "--val", 1, "--size", 48, "--overwrite")
    assert len(list((tmp_path / "JPEGImages").iterdir())) == 4


def test_command_line(tmp_path: Path) -> None:
    done = run("make_shapes", "--root", tmp_path / "x", "--train", "0")
    assert done.returncode == 1 and done.stderr.startswith("error: --train")
