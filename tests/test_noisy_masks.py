"""Masks with wrong labels: whole regions, a known share of them, the same every time."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from common.data.masks import read_mask, write_mask
from common.data.stamp import MASKS, read_stamp
from common.run.errors import UserError
from tests.datasets import call


@pytest.fixture
def masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Forty masks of two separate squares of a class and one of another, with an ignored border, in ``masks/``."""
    monkeypatch.chdir(tmp_path)
    Path("masks").mkdir()
    made = {}
    for number in range(40):
        mask = np.zeros((24, 30), dtype=np.uint8)
        mask[2:8, 2:8] = mask[12:20, 3:9] = 1 + number % 3
        mask[4:14, 15:25] = 1 + (number + 1) % 3
        mask[:, -2:] = 255
        made[f"image_{number:02d}"] = mask
        write_mask(f"masks/image_{number:02d}.png", mask)
    return made


def regions(mask: np.ndarray) -> list[np.ndarray]:
    """The connected parts of each class, as bool (H, W)."""
    found = []
    for label in set(np.unique(mask).tolist()) - {0, 255}:
        count, parts = cv2.connectedComponents((mask == label).astype(np.uint8))
        found += [parts == part for part in range(1, count)]
    return found


def test_whole_regions_get_wrong_labels(
    masks: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "noisy_masks", "--masks", "masks", "--out", "noisy", "--share", "0.4") == 0
    said = capsys.readouterr().out
    total = wrong = 0
    labels = set()
    for image_id, mask in masks.items():
        noisy = read_mask(Path(f"noisy/{image_id}.png"))
        for region in regions(mask):
            (label,) = np.unique(noisy[region]).tolist()
            labels.add(label)
            total += 1
            wrong += label != mask[region][0]
        outside = (mask == 0) | (mask == 255)
        assert (noisy[outside] == mask[outside]).all()
    assert f"40 masks, {wrong} of {total} regions" in said and total == 120
    assert 30 <= wrong <= 66 and labels == {0, 1, 2, 3}  # 48 expected; 4 standard deviations are 21
    stamp = read_stamp("noisy")
    assert stamp and stamp.kind == MASKS and stamp.settings["share"] == 0.4

    def again(out: str, *arguments: object) -> list[bool]:
        call(monkeypatch, "noisy_masks", "--masks", "masks", "--out", out, *arguments)
        return [(read_mask(Path(f"{out}/{name}.png")) == read_mask(Path(f"noisy/{name}.png"))).all() for name in masks]

    assert all(again("same", "--share", "0.4"))
    assert not all(again("other", "--share", "0.4", "--seed", 1))


def test_wrong_usage(masks: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a full folder nor masks of one label are touched."""
    with pytest.raises(UserError, match="--out masks exists"):
        call(monkeypatch, "noisy_masks", "--masks", "masks", "--out", "masks")
    Path("flat").mkdir()
    write_mask("flat/a.png", np.zeros((3, 3), dtype=np.uint8))
    with pytest.raises(UserError, match="a single label"):
        call(monkeypatch, "noisy_masks", "--masks", "flat", "--out", "new")
    assert not Path("new").exists()
