"""ToCo from training to masks and seeds. (Exact resume, two processes, a used folder: tests/test_training.py.)"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.data.seeds import read_seed
from common.run.errors import UserError
from methods.toco.model import ToCo
from methods.toco.step import LOSS_TERMS
from methods.toco.validation import PREDICTIONS, f1_score
from tests.helpers import Scripts, last, metrics

VALUES = {"val_f1", *(f"val_{name}" for name in PREDICTIONS)}


@pytest.fixture(scope="module")
def whole(toco_experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An uninterrupted run: its last checkpoint, metrics and folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        assert Scripts(patch, toco_experiment, "toco").train("whole") == 0
        return SimpleNamespace(last=last("whole"), metrics=metrics("whole"), folder=Path("experiment/whole").absolute())


def test_a_run_and_what_is_made_of_it(
    toco_scripts: Scripts, whole: SimpleNamespace, capsys: pytest.CaptureFixture
) -> None:
    """Losses set in where they should; two validations; seeds of the weights that were kept."""
    lines = whole.metrics
    assert [line["kind"] for line in lines] == [*["train"] * 5, "validation", *["train"] * 3, "validation"]
    train = [line for line in lines if line["kind"] == "train"]
    assert {"total", *LOSS_TERMS, "accuracy_cls", "accuracy_aux", "lr"} <= train[0].keys()
    for number, line in enumerate(train):
        assert line["ptc"] > 0 and line["ctc"] > 0 and (line["reg"] < 0) <= (number > 2)
        weights = {"cls": 1, "cls_aux": 1, "ptc": 0.2, "ctc": 0.5, "seg": 0.1, "reg": 0.05}
        assert line["total"] == pytest.approx(sum(weight * line[name] for name, weight in weights.items()), rel=1e-4)
    assert all(line["seg"] == 0 for line in train[:3]) and any(line["seg"] > 0 for line in train[3:])
    for line in (lines[5], lines[9]):
        assert line.keys() >= VALUES and all(0 <= line[name] <= 100 for name in VALUES)
    assert {path.name for path in (whole.folder / "ckpt").iterdir()} == {
        "last.pth", "best.pth", "model_iter_4.pth", "model_iter_8.pth",
    }  # fmt: skip
    text = (whole.folder / "log.txt").read_text()
    assert (
        "step 5: f1 " in text and "done: 8 steps. Segmentation: python methods/toco/infer_seg.py --name whole" in text
    )

    file = whole.folder / "ckpt" / "model_iter_4.pth"
    assert toco_scripts.infer("x", "--load_pretrained", file, "--dict") == 0
    assert "6 seeds written" in capsys.readouterr().out
    assert all(read_seed(path) for path in Path("experiment/x/dict").glob("*.npy"))


def test_accumulated_micro_batches_update_the_teacher_once(
    toco_scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of two micro-batches moves the teacher by one update."""
    calls, update = [], ToCo.update_teacher
    monkeypatch.setattr(ToCo, "update_teacher", lambda *arguments: (calls.append(arguments[1]), update(*arguments)))
    assert toco_scripts.train("x", "train.max_steps=3", "train.accumulation=2", "train.eval_steps=0") == 0
    assert calls == [0.9] * 3


def test_groups_that_do_not_divide_the_batch(toco_scripts: Scripts) -> None:
    """One line that names the key; nothing is trained."""
    with pytest.raises(UserError, match=r"loss\.group=3 does not divide the micro-batch of 4"):
        toco_scripts.train("x", "loss.group=3")


def test_images_without_labels_are_left_out(toco_scripts: Scripts, own_data: Path) -> None:
    """As in the reference's lists of COCO."""
    name = (own_data / "ImageSets" / "Segmentation" / "train.txt").read_text().split()[0]
    file = own_data / "Annotations" / f"{name}.xml"
    text = file.read_text()
    while "<object>" in text:
        text = text[: text.index("<object>")] + text[text.index("</object>") + len("</object>") :]
    file.write_text(text)
    places = (f"data.root={own_data}", f"data.labels={own_data}/Annotations", "train.max_steps=1", "train.eval_steps=0")
    assert toco_scripts.train("x", *places) == 0
    assert "23 images" in Path("experiment/x/log.txt").read_text()


def test_f1_score_by_hand() -> None:
    """Two of three right and one wrong; nothing right; nothing asked and nothing found."""
    logits = torch.tensor([[1.0, 1, -1, 1], [-1, -1, 1, -1], [-1, -1, -1, -1]])
    labels = torch.tensor([[1.0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(f1_score(logits, labels), [2 * 2 / 6, 0, 0])
