"""Deletion and insertion of seeds equal a loop, order good maps above bad ones, and run on a data set without masks."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from common.run.errors import UserError
from common.seeds.faithfulness import faithfulness_areas
from tests.helpers import Scripts


def corner_logits(images: Tensor) -> Tensor:
    """A network that looks at the upper left quarter alone, for its only class."""
    height, width = images.shape[-2:]
    return 8 * images[:, :, : height // 2, : width // 2].mean((1, 2, 3))[:, None] - 4


def areas_by_loop(image: Tensor, values: Tensor, steps: int) -> tuple[float, float]:
    """One pass for each step; pixels are taken out, or put in, one by one."""
    order = sorted(range(values.numel()), key=lambda place: -values.flatten()[place])
    curves: tuple[list, list] = ([], [])
    for step in range(steps + 1):
        chosen = torch.zeros(values.numel(), dtype=torch.bool)
        chosen[order[: step * values.numel() // steps]] = True
        for curve, kept in zip(curves, (~chosen, chosen), strict=True):
            curve.append(float(corner_logits((image * kept.view_as(values))[None]).sigmoid()))
    return tuple((sum(curve) - (curve[0] + curve[-1]) / 2) / steps for curve in curves)


def test_areas_equal_a_loop_and_rank_maps() -> None:
    torch.manual_seed(0)
    image = torch.rand(3, 8, 10) + 0.5
    good = torch.rand(8, 10)
    good[:4, :5] += 1
    found = faithfulness_areas(corner_logits, image, torch.stack([good, -good]), torch.tensor([0, 0]), 7)
    for own, values in zip(found, (good, -good), strict=True):
        assert own.tolist() == pytest.approx(areas_by_loop(image, values, 7), abs=1e-5)
    assert found[0, 0] < found[1, 0] and found[0, 1] > found[1, 1]
    assert faithfulness_areas(corner_logits, image, good[:0], torch.tensor([], dtype=torch.long)).shape == (0, 2)


@pytest.mark.usefixtures("one_thread")
def test_a_run_without_masks(scripts: Scripts, checkpoint: Path, own_data: Path, capsys: pytest.CaptureFixture) -> None:
    for mask in (own_data / "SegmentationClass").glob("*.png"):
        mask.unlink()
    arguments = ("--load_pretrained", checkpoint, f"data.root={own_data}", f"data.labels={own_data}/Annotations")
    assert scripts.infer("x", *arguments, "--faithfulness") == 0
    result = json.loads(Path("experiment/x/faithfulness.json").read_text())
    low, high = result["deletion"]["interval"]
    assert 0 <= low <= result["deletion"]["value"] <= high <= 100 and result["maps"] >= result["images"] > 0
    assert "area under deletion" in capsys.readouterr().out
    with pytest.raises(UserError, match="leave out --dict"):
        scripts.infer("x", *arguments, "--faithfulness", "--dict")
