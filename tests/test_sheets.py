"""Contact sheets of predictions: which images, their scores, the lines above, the column of seeds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data.dataset import ImageSet
from common.data.layout import DataConfig
from common.data.masks import write_mask
from common.data.seeds import write_seed
from common.data.stamp import MASKS, SEEDS, Stamp
from common.run.errors import UserError
from common.run.folder import RunFolder
from common.score.counts import ConfusionCounts
from common.score.sheet import chosen_images, image_iou, of_weights
from tests.datasets import call, make_voc, script, write_lines

Sheet = dict[str, Any]


@pytest.fixture
def sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Sheet]:
    """A run ``x`` with masks of six images, which get better, made of the seeds of a run ``s``; all that is drawn."""
    monkeypatch.chdir(tmp_path)
    ids = make_voc(Path("voc"))[:-1]
    write_lines(RunFolder("x").config, ["data: {root: voc}"])
    write_lines(RunFolder("s").config, ["data: {root: voc}"])
    for index, image_id in enumerate(ids):
        mask = ImageSet(DataConfig(root="voc"), "train").load_mask(index)
        made = np.where(mask == 255, 0, mask)
        made[: 12 - 2 * index] = 0
        write_mask(RunFolder("x").masks / f"{image_id}.png", made)
        write_seed(RunFolder("s").seeds, image_id, {7: (made == 8).astype(np.float32)})
    seeds = Stamp(SEEDS, "CTI", {"checkpoint": "experiment/s/ckpt/007net_trm.pth"}, {"train": 6})
    seeds.write(RunFolder("s").seeds)
    Stamp(MASKS, "CRF alone", {"seeds": str(RunFolder("s").seeds), "made_by": {}}, {"train": 6}).write(
        RunFolder("x").masks
    )
    drawn: list[Sheet] = []

    def keep(rows: Any, path: Path, **more: Any) -> None:
        drawn.append({"captions": [[caption for caption, _ in row] for row in rows], "path": str(path), **more})

    for name in ("show_masks", "show_seeds"):
        monkeypatch.setattr(script(name), "contact_sheet", keep)
    return drawn


def test_the_score_of_an_image() -> None:
    """The mean over the labels that are there, as the evaluation counts them."""
    rng = np.random.default_rng(0)
    mask, labels = (rng.choice(4, (20, 30), p=(0.6, 0.2, 0.1, 0.1)).astype(np.uint8) for _ in range(2))
    mask[:3] = 255
    counts = ConfusionCounts(4)
    counts.add(labels, mask)
    assert image_iou(labels, mask) == pytest.approx(float(np.mean(counts.scores().iou)))
    assert image_iou(mask, mask) == 100 and image_iou(np.zeros((2, 2)), np.full((2, 2), 255)) == 100
    assert image_iou(np.array([[1, 1]]), np.array([[1, 0]])) == 25  # 1: 1/2, 0: none of one pixel


def test_which_images_are_shown(sheets: list[Sheet]) -> None:
    """In the order in which they are shown; masks get better along the list."""
    images = ImageSet(DataConfig(root="voc"), "train")
    truth = [images.load_mask(index) for index in range(6)]
    half = [np.where(np.arange(24)[:, None] < 4 * index + 1, mask, 0) for index, mask in enumerate(truth)]
    ious = [image_iou(half[index], truth[index]) for index in range(6)]

    def shown(choice: str, count: int) -> list[int]:
        return chosen_images(images, count, choice, half.__getitem__)

    assert shown("first", 2) == [0, 1] and shown("spread", 3) == [0, 2, 5] and shown("spread", 99) == list(range(6))
    assert [ious[index] for index in shown("worst", 3)] == sorted(ious)[:3]
    assert [ious[index] for index in shown("best", 6)] == sorted(ious, reverse=True)
    with pytest.raises(UserError, match="at least one image"):
        shown("best", 0)
    for path in Path("voc/SegmentationClass").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="--images worst needs true masks, and the list 'train' has none"):
        shown("worst", 3)


def test_weights_in_words() -> None:
    names = {"ckpt/007net_trm.pth": "epoch 7", "model_iter_2000.pth": "iteration 2000", "ckpt/best.pth": "best.pth"}
    assert {name: of_weights(name) for name in names} == names and of_weights("") == ""


def test_sheet_of_masks(sheets: list[Sheet], monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed, true mask, mask with its IoU, errors; the score above is of this list and folder, or there is none."""
    arguments = "--name", "x", "--list", "train", "--count", 2, "--images", "best"
    assert call(monkeypatch, "show_masks", *arguments) == 0
    result = {"list": "train", "images": 6, "source": "experiment/x/masks", "best": {"mIoU": 61.234}}
    for change in ({}, {"list": "val"}, {"source": "experiment/y/masks"}):
        RunFolder("x").scores("eval_png").write_text(json.dumps({**result, **change}))
        assert call(monkeypatch, "show_masks", *arguments) == 0
    without, scored, *others = sheets
    assert without["path"] == "experiment/x/masks_train_best.png" and len(without["captions"]) == 2
    image, seed, truth, mask, errors = without["captions"][0]
    assert image.startswith("image 2007_") and truth.startswith("true mask: cat")
    assert seed.startswith("seed at 0.40, IoU ") and mask.startswith("masks, IoU ") and errors.startswith("errors: ")
    assert scored["header"] == [
        "run x, CRF alone", "list train, 6 images: of the highest IoU", "masks: 61.23 mIoU of 6 images",
    ]  # fmt: skip
    for sheet in (without, *others):
        assert sheet["header"][-1] == "masks: not scored on train yet"
    assert {"missed", "too much", "wrong class"} <= scored["legend"].keys()
    assert call(monkeypatch, "show_masks", *arguments[:-2], "--seeds", "experiment/s/dict", "--threshold", "0.3") == 0
    assert sheets[-1]["captions"][0][1].startswith("seed at 0.30, IoU ")
    with pytest.raises(UserError, match="--seeds names a folder of seeds"):
        call(monkeypatch, "show_masks", *arguments, "--seeds", "experiment/x/masks")


def test_sheet_of_seeds(sheets: list[Sheet], monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores in the captions, epoch of the weights and mIoU above; the worst image comes first."""
    result = {"list": "train", "images": 6, "source": "experiment/s/dict", "best": {"mIoU": 50.0, "threshold": 0.2}}
    RunFolder("s").scores("eval_cam").write_text(json.dumps(result))
    assert call(monkeypatch, "show_seeds", "--name", "s", "--list", "train", "--images", "worst", "--count", 3) == 0
    (sheet,) = sheets
    assert sheet["path"] == "experiment/s/seeds_train_worst.png"
    assert sheet["header"][0] == "run s, CTI, epoch 7"
    assert sheet["header"][2] == "seeds at their best threshold: 50.00 mIoU of 6 images"
    scores = []
    for image, truth, seed, errors, cam in sheet["captions"]:
        assert image.startswith("image ") and truth.startswith("true mask: ") and cam == "CAM: cat"
        assert seed.startswith("seed at 0.20, IoU ") and errors.startswith("errors: ")
        scores.append(int(seed.split("IoU ")[1].split(":")[0]))
    assert scores == sorted(scores) and scores[0] < scores[-1]
