"""Scripts of segments: making them, the SAM path with a stand-in, the vote, and masks of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.agreement import write_agreement
from common.data.lists import read_list
from common.data.masks import read_mask
from common.data.seed_labels import seed_labels
from common.data.seeds import read_seed, seed_path, write_seed
from common.data.segments import read_segments, write_labels
from common.data.thresholds import read_thresholds
from common.run.errors import UserError
from common.score.counts import ConfusionCounts
from methods.segments import sam, vote
from methods.segments.config import SamConfig
from methods.segments.thresholds import ClassCounts
from tests.datasets import call, write_lines
from tests.helpers import contents, failure
from tests.test_pipeline import OneOfTwo


@pytest.fixture
def ids(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images of val, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return read_list(shapes / "ImageSets/Segmentation/val.txt", "voc12")


def options(shapes: Path, *arguments: object) -> tuple[object, ...]:
    data = (f"data.root={shapes}", f"data.classes={shapes}/classes.txt", "runtime.num_workers=0")
    return ("--exp", "segments_demo", *data, *arguments)


def make(monkeypatch: pytest.MonkeyPatch, shapes: Path, *arguments: object) -> int:
    return call(monkeypatch, "make_segments", "--name", "s", *options(shapes, *arguments))


def run_vote(monkeypatch: pytest.MonkeyPatch, shapes: Path, seeds: Path | str, *arguments: object) -> int:
    """Calls vote.py for the run ``v``."""
    line = ("--name", "v", "--seeds", seeds, *options(shapes, *arguments))
    monkeypatch.setattr("sys.argv", ["vote", *map(str, line)])
    return vote.main() or 0


def true_segments(shapes: Path, ids: list[str], folder: Path) -> Path:
    """Each true region, and its border, as a segment."""
    for image_id in ids:
        mask = read_mask(shapes / "SegmentationClass" / f"{image_id}.png")
        write_labels(folder / f"{image_id}.npz", mask.astype(int) + 1)
    return folder


def test_segments_are_made_once(
    shapes: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A lost file is made again, two processes give the same bytes, other settings are refused."""
    assert make(monkeypatch, shapes) == 0
    made = contents("experiment/s/segments")
    assert len([name for name in made if name.endswith(".npz")]) == len(ids)
    Path(f"experiment/s/segments/{ids[0]}.npz").unlink()
    capsys.readouterr()
    assert make(monkeypatch, shapes) == 0
    assert f"1 segments written, {len(ids) - 1} were there" in capsys.readouterr().out
    assert contents("experiment/s/segments") == made
    message = failure(capsys, make, monkeypatch, shapes, "segments.meanshift.join=7")
    assert "experiment/s/segments holds segments of" in message and "--overwrite" in message
    shutil.rmtree("experiment/s")
    for rank in (0, 1):
        monkeypatch.setattr("common.run.processes.start_processes", lambda rank=rank: OneOfTwo(rank, rank, 2))
        assert make(monkeypatch, shapes) == 0
    assert contents("experiment/s/segments") == made


def test_vote_over_true_regions(
    shapes: Path, seeds: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Seeds and masks of all images, their scores; resumed bit by bit; changed seeds or settings are refused."""
    folder = true_segments(shapes, ids, Path("true"))
    shutil.copytree(seeds, "seeds")
    assert run_vote(monkeypatch, shapes, "seeds", "--segments", folder, "--threshold", "0.3") == 0
    masks = json.loads(Path("experiment/v/eval_png.json").read_text())["best"]["mIoU"]
    best = json.loads(Path("experiment/v/eval_cam.json").read_text())["best"]["mIoU"]
    assert best == masks == pytest.approx(600 / 7)  # one of seven labels is in none of the six images
    made = contents("experiment/v/dict"), contents("experiment/v/masks")
    for image_id in ids:
        seed = read_seed(seed_path("experiment/v/dict", image_id))
        mask = read_mask(Path(f"experiment/v/masks/{image_id}.png"))
        assert np.array_equal(mask, seed_labels(seed, 0.3, mask.shape))
    Path(f"experiment/v/masks/{ids[0]}.png").unlink()
    Path(f"experiment/v/dict/{ids[1]}.npy").unlink()
    capsys.readouterr()
    assert run_vote(monkeypatch, shapes, "seeds", "--segments", folder, "--threshold", "0.3") == 0
    assert f"2 seeds and masks written, {len(ids) - 2} were there" in capsys.readouterr().out
    assert (contents("experiment/v/dict"), contents("experiment/v/masks")) == made
    message = failure(capsys, run_vote, monkeypatch, shapes, "seeds", "--segments", folder, "--vote", "max")
    assert "experiment/v/dict holds seeds of" in message and "--overwrite" in message
    assert (contents("experiment/v/dict"), contents("experiment/v/masks")) == made


def test_two_processes_share_the_vote(
    shapes: Path, seeds: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = true_segments(shapes, ids, Path("true"))
    arguments = ("--segments", folder, "infer.eval_list=", "vote.format=npz")
    assert run_vote(monkeypatch, shapes, seeds, *arguments) == 0
    made = contents("experiment/v/dict"), contents("experiment/v/masks")
    shutil.rmtree("experiment/v")
    for rank in (0, 1):
        monkeypatch.setattr("common.run.processes.start_processes", lambda rank=rank: OneOfTwo(rank, rank, 2))
        assert run_vote(monkeypatch, shapes, seeds, *arguments) == 0
    assert (contents("experiment/v/dict"), contents("experiment/v/masks")) == made


def test_what_cannot_vote(
    shapes: Path, seeds: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Missing segments, another size, no folder, another kind: one line each, and no mask is half-written."""
    folder = true_segments(shapes, ids, Path("true"))
    one = write_lines(Path("one.txt"), ids[:1])
    lists = ("--infer_list", one, "infer.eval_list=")
    (folder / f"{ids[0]}.npz").rename("kept.npz")
    message = failure(capsys, run_vote, monkeypatch, shapes, seeds, "--segments", folder, *lists)
    assert f"1 of the 1 images of list 'one.txt' have no segments in true: {ids[0]}" in message
    assert not Path("experiment/v").exists()
    for segments, words in (("lost", "no folder of segments lost"), (seeds, "cannot be used as segments")):
        message = failure(capsys, run_vote, monkeypatch, shapes, seeds, "--segments", segments, *lists)
        assert words in message
    assert "no folder of segments experiment/v/segments" in failure(
        capsys, run_vote, monkeypatch, shapes, seeds, *lists
    )
    write_labels(folder / f"{ids[0]}.npz", np.ones((3, 4)))
    message = failure(capsys, run_vote, monkeypatch, shapes, seeds, "--segments", folder, *lists)
    assert f"true/{ids[0]}.npz cannot be used as segments: it is of (3, 4) pixels" in message
    assert not list(Path("experiment/v").rglob("*.png")) and not list(Path("experiment/v").rglob("*.npy"))
    (folder / f"{ids[0]}.npz").write_bytes(Path("kept.npz").read_bytes())
    write_seed("own", ids[0], {})  # an image without labels
    assert run_vote(monkeypatch, shapes, "own", "--segments", folder, *lists) == 0
    assert read_seed(f"experiment/v/dict/{ids[0]}.npy") == {}
    assert read_mask(Path(f"experiment/v/masks/{ids[0]}.png")).max() == 0


def test_changed_inputs_are_noticed(
    shapes: Path, seeds: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Another seed or file of segments: the image is made again. Another image: its segments are no longer its own."""
    shutil.copytree(shapes, "data")
    shutil.copytree(seeds, "own")
    lists = ("--infer_list", write_lines(Path("some.txt"), ids[:2]), "infer.eval_list=", "data.root=data")
    assert make(monkeypatch, shapes, *lists) == 0
    folder = Path("experiment/s/segments")

    def again() -> str:
        capsys.readouterr()
        assert run_vote(monkeypatch, shapes, "own", "--segments", folder, *lists) == 0
        return capsys.readouterr().out

    again()
    assert "made again" not in again()
    write_seed("own", ids[0], {})
    assert f"of 1 images are made again, as their image, labels or seed have changed: {ids[0]}" in again()
    assert read_seed(f"experiment/v/dict/{ids[0]}.npy") == {}
    file = folder / f"{ids[1]}.npz"
    write_labels(file, np.ones(read_mask(shapes / "SegmentationClass" / f"{ids[1]}.png").shape))
    assert f"of 1 images are made again, as their image, labels or seed have changed: {ids[1]}" in again()
    image = next(Path("data/JPEGImages").glob(f"{ids[0]}.*"))
    image.write_bytes(image.read_bytes() + b" ")
    message = failure(capsys, run_vote, monkeypatch, shapes, "own", "--segments", folder, *lists)
    assert f"segments of 1 images in {folder} were made of other image files: {ids[0]}" in message
    assert make(monkeypatch, shapes, *lists) == 0 and "of 1 images are made again" in again()


def test_masks_leave_out_what_is_in_doubt(
    shapes: Path, seeds: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """255 where the fused runs disagree, averaged over segments, and in segments without a majority."""
    lists = ("--infer_list", write_lines(Path("one.txt"), ids[:1]), "infer.eval_list=")
    shape = read_mask(shapes / "SegmentationClass" / f"{ids[0]}.png").shape
    labels = np.ones(shape, dtype=int)
    labels[:, shape[1] // 2 :] = 2
    write_labels(Path("segments") / f"{ids[0]}.npz", labels)
    agreeing = np.full(shape, 2)
    agreeing[:, 0] = 1
    agreeing[:, -1] = 0
    agreeing[:, shape[1] // 2 :] = np.minimum(agreeing[:, shape[1] // 2 :], 1)
    write_agreement(Path("agreement"), ids[0], agreeing, 2)
    doubt = ("vote.agreement=agreement", "vote.min_agreement=0.8")
    assert run_vote(monkeypatch, shapes, seeds, "--segments", "segments", *lists, *doubt) == 0
    mask = read_mask(Path(f"experiment/v/masks/{ids[0]}.png"))
    assert np.array_equal(mask == 255, labels == 2)
    assert run_vote(monkeypatch, shapes, seeds, "--segments", "none", "--overwrite", *lists, *doubt) == 0
    mask = read_mask(Path(f"experiment/v/masks/{ids[0]}.png"))
    assert np.array_equal(mask == 255, agreeing < 2)
    thirds = np.arange(shape[0])[:, None] * 3 // shape[0] + np.zeros(shape, dtype=int)
    write_seed("own", ids[0], {key: (thirds == key).astype(np.float32) for key in (0, 1)})
    write_labels(Path("segments") / f"{ids[0]}.npz", np.ones(shape, dtype=int))
    given = ("--segments", "segments", "--overwrite", *lists, "vote.ignore_undecided=true")
    assert run_vote(monkeypatch, shapes, "own", *given) == 0
    assert (read_mask(Path(f"experiment/v/masks/{ids[0]}.png")) == 255).all()


def test_thresholds_of_classes_are_tuned_and_used(
    shapes: Path, seeds: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Masks follow thresholds.json, which another run can use; scored images among the tuned ones are counted."""
    lists = ("--segments", "none", "--infer_list", "val", "infer.eval_list=val")
    assert run_vote(monkeypatch, shapes, seeds, *lists, "--tune_on", "val") == 0
    assert f"note: {len(ids)} of them are among the {len(ids)} images that are scored" in capsys.readouterr().out
    tuned = json.loads(Path("experiment/v/thresholds.json").read_text())
    assert tuned["list"] == "val" and len(tuned["thresholds"]) == 6
    masks = contents("experiment/v/masks")
    score = json.loads(Path("experiment/v/eval_png.json").read_text())["best"]["mIoU"]
    common = json.loads(Path("experiment/v/eval_cam.json").read_text())["best"]["mIoU"]
    assert score >= common - 1e-6  # the best common threshold is where the tuning starts
    shutil.copy("experiment/v/thresholds.json", "own.json")
    shutil.rmtree("experiment/v")
    assert run_vote(monkeypatch, shapes, seeds, *lists, "--thresholds", "own.json") == 0
    found = contents("experiment/v/masks")
    assert {k: v for k, v in found.items() if k.endswith("png")} == {
        k: v for k, v in masks.items() if k.endswith("png")
    }
    message = failure(capsys, run_vote, monkeypatch, shapes, seeds, *lists, "--tune_on", "val", "--thresholds", "x")
    assert "give one of them" in message


def test_tuned_thresholds_are_the_best_of_all() -> None:
    """Against every choice for two classes on a coarse grid, scored by argmax."""
    rng = np.random.default_rng(0)
    grid = np.array([0.1, 0.4, 0.7])
    pairs = []
    for classes in ([0, 1], [0], [1], []):
        mask = rng.choice([0, 1, 2, 255], (12, 13)).astype(np.uint8)
        seed = {key: (rng.random((12, 13)) * 0.5 + 0.4 * (mask == key + 1)).astype(np.float32) for key in classes}
        pairs.append((seed, mask))
    counts = ClassCounts(2, grid) + ClassCounts(2, grid)
    for seed, mask in pairs:
        counts.add(seed, mask)
    scores = {}
    for first in range(3):
        for second in range(3):
            matrix = ConfusionCounts(3)
            for seed, mask in pairs:
                matrix.add(seed_labels(seed, 0.0, mask.shape, {0: grid[first], 1: grid[second]}), mask)
            scores[first, second] = float(matrix.scores().miou)
            assert counts.miou([first, second]) == pytest.approx(scores[first, second], abs=1e-9)
    best = max(scores, key=scores.__getitem__)
    assert counts.tuned() == [grid[place] for place in best]


@pytest.mark.parametrize(("text", "words"), [
    ("[", r"t\.json is no JSON"), ("{}", "cannot be read as thresholds"),
    ('{"thresholds": [0.5]}', "cannot be read as thresholds"), ('{"thresholds": {"cow": 0.5}}', "thresholds of cow"),
    ('{"thresholds": {"cat": "0.5"}}', "threshold of cat is '0.5'"), ('{"thresholds": {"cat": NaN}}', "cat is nan"),
])  # fmt: skip
def test_hostile_thresholds(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UserError, match=words):
        read_thresholds(tmp_path / "t.json", ["cat", "dog"])


class StandIn:
    """Gives random overlapping regions, as transformers' pipeline for mask generation does."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: Image.Image) -> dict[str, Any]:
        self.calls += 1
        rng = np.random.default_rng(image.width * image.height)
        masks = [rng.random((image.height, image.width)) < share for share in (0.9, 0.3, 0.3, 0.0)]
        return {"masks": masks, "scores": torch.tensor([0.5, 0.9, 0.7, 0.99])}


def test_segments_of_a_sam(
    shapes: Path, seeds: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Overlapping regions with their scores go to JSON, which votes; small ones are left out; restarted."""
    generate = StandIn()
    monkeypatch.setattr(sam, "mask_generator", lambda config, runtime: generate)
    weights = ("--with", "sam", "segments.sam.weights=w")
    assert make(monkeypatch, shapes, *weights) == 0
    assert "extra supervision" in capsys.readouterr().out and generate.calls == len(ids)
    for image_id in ids:
        mask = read_mask(shapes / "SegmentationClass" / f"{image_id}.png")
        masks = StandIn()(Image.fromarray(mask))["masks"]
        segments = read_segments(Path(f"experiment/s/segments/{image_id}.json"), mask.shape)
        assert segments.counts.tolist() == [masks[0].sum(), masks[2].sum(), masks[1].sum()]
        owners = segments.owners()
        assert (owners[masks[1]] == 2).all() and ((owners == -1) == ~(masks[0] | masks[1] | masks[2])).all()
    made = contents("experiment/s/segments")
    Path(f"experiment/s/segments/{ids[0]}.json").unlink()
    assert make(monkeypatch, shapes, *weights) == 0
    assert contents("experiment/s/segments") == made and generate.calls == len(ids) + 1
    lists = ("--infer_list", "val", "infer.eval_list=")
    assert run_vote(monkeypatch, shapes, seeds, "--segments", "experiment/s/segments", *lists) == 0
    assert len(list(Path("experiment/v/masks").glob("*.png"))) == len(ids)


def test_a_sam_that_cannot_run(
    shapes: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Without weights, without the package, with what are no weights, with masks of another size: one line each."""
    message = failure(capsys, make, monkeypatch, shapes, "--with", "sam2")
    assert "which weights?" in message
    local = ("--with", "sam", "segments.sam.weights=./lost")
    assert "no weights in ./lost" in failure(capsys, make, monkeypatch, shapes, *local)
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    message = failure(capsys, make, monkeypatch, shapes, "--with", "sam", "segments.sam.weights=some/name")
    assert "need the package transformers" in message and "pip install" in message
    assert not Path("experiment/s").exists()

    class Package:
        @staticmethod
        def pipeline(*arguments: object, **settings: object) -> None:
            raise OSError("some/name is not a local folder\nand more")

    monkeypatch.setitem(__import__("sys").modules, "transformers", Package)
    message = failure(capsys, make, monkeypatch, shapes, "--with", "sam", "segments.sam.weights=some/name")
    assert "some/name cannot be loaded for mask generation (OSError: some/name is not a local folder)" in message
    for output in ({"masks": [np.ones((2, 2))], "scores": [0.5]}, {"masks": [np.ones((3, 4))], "scores": []}, {}):
        if output:
            with pytest.raises(UserError, match="mask generation gave"):
                sam.regions_of(output, (3, 4), 1)
        else:
            assert sam.regions_of(output, (3, 4), 1) == ([], [])
    assert SamConfig().weights == ""


def test_pictures_and_benchmark(
    shapes: Path, seeds: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The sheet shows segments in their mean colour and nothing where there is none; each row has its ratio."""
    folder = true_segments(shapes, ids, Path("true"))
    assert run_vote(monkeypatch, shapes, seeds, "--segments", folder, "infer.eval_list=") == 0
    assert call(monkeypatch, "show_segments", "--name", "v", "--count", "2") == 0
    with Image.open("experiment/v/segments_val.png") as sheet:
        assert sheet.width > 5 * 240 and sheet.height > 2 * 200
    capsys.readouterr()
    call(monkeypatch, "benchmark_beyond", "--size", "30", "40", "--segments", "9", "--turns", "1")
    header, _, *rows = capsys.readouterr().out.strip().splitlines()
    assert len(rows) == 11 and {row.count("|") for row in rows} == {header.count("|")}
