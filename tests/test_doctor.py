"""The examination of a run finds each thing that is odd, and nothing in a sound run."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from common.data.masks import write_mask
from common.data.seeds import write_seed
from common.run.errors import UserError
from common.run.files import write_json
from tests.datasets import call, make_voc

MEANS = {
    name: {"value": value, "interval": [value - 1, value + 1]}
    for name, value in (("mIoU", 60.0), ("extra", 15.0), ("missed", 25.0))
}


@pytest.fixture
def examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """A sound run ``x`` on six images, and a call of the script."""
    monkeypatch.chdir(tmp_path)
    ids = make_voc(Path("voc"))[:-1]
    run = Path("experiment/x")
    run.mkdir(parents=True)
    for number, name in enumerate(ids):
        classes = [7, 14] if number % 2 else [7]
        write_seed(run / "dict", name, {key: np.full((24, 32), 0.6, np.float32) for key in classes})
    content = {"data": {"dataset": "voc12", "root": "voc", "labels": "voc/Annotations"}}
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    write_metrics([3.0, 2.0, 1.0, 0.5, 0.4, 0.3])
    write_scores()
    write_json(
        run / "eval_cam_card.json", {"points": {"best": {"means": MEANS}}, "labels": ["background"], "main": "best"}
    )
    return lambda *arguments: call(monkeypatch, "doctor", "x", *arguments)


def write_metrics(losses: list[float], accuracy: float = 0.9) -> None:
    lines = [
        {"step": step, "kind": "train", "total": loss, "accuracy_cls": accuracy} for step, loss in enumerate(losses)
    ]
    Path("experiment/x/metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def write_scores(threshold: float = 0.3, recall: float = 50.0, warnings: list | None = None) -> None:
    classes = {"background": {"recall": 90.0}, "cat": {"recall": recall}}
    best = {"threshold": threshold, "mIoU": 60.0, "classes": classes, "absent": []}
    content = {"best": best, "thresholds": [0.0, 0.3, 0.9], "images": 6, "list": "train", "warnings": warnings or []}
    write_json("experiment/x/eval_cam.json", content)


def odd(capsys: pytest.CaptureFixture) -> list[str]:
    """The odd subjects of the last examination."""
    lines = capsys.readouterr().out.splitlines()
    return [line[7:29].strip() for line in lines if line.startswith("  ODD")]


def test_a_sound_run(examined: Callable[..., int], capsys: pytest.CaptureFixture) -> None:
    assert examined() == 0
    shown = capsys.readouterr().out
    assert "nothing is odd" in shown and "falls: 3 in the first fifth, 0.3 in the last" in shown
    for words in ("0 of 6 images", "torch ", "SHA-256", "inside 0.00 to 0.90", "60.00 mIoU at threshold 0.30"):
        assert words in shown


def test_what_is_odd_is_found(examined: Callable[..., int], capsys: pytest.CaptureFixture) -> None:
    run = Path("experiment/x")
    changes: list[tuple[Callable[[], object], list[str]]] = [
        (lambda: write_metrics([0.3, 0.4, 0.5]), ["loss"]),
        (lambda: write_metrics([1.0, float("nan"), 0.5]), ["loss"]),
        (lambda: write_metrics([1.0, 0.5], 0.1), ["accuracy_cls"]),
        (lambda: write_scores(0.0), ["best threshold"]),
        (lambda: write_scores(recall=0.0), ["classes"]),
        (lambda: write_scores(warnings=["below both"]), ["evaluation"]),
        (lambda: write_scores(0.8), ["empty seeds"]),
        (lambda: (run / "dict" / "2007_000001.npy").unlink(), ["seeds without a file"]),
        (lambda: write_json(run / "eval_cam_card.json", {
            "points": {"best": {"means": {**MEANS, "extra": {**MEANS["extra"], "value": 5.0}}}},
            "labels": [], "main": "best",
        }), ["errors"]),
    ]  # fmt: skip
    kept = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for change, subjects in changes:
        change()
        assert examined() == 1
        assert odd(capsys) == subjects
        for path, content in kept.items():
            path.write_bytes(content)
    for name in ("2007_000001", "2007_000002"):
        write_mask(f"voc/SegmentationClass/{name}.png", np.full((24, 32), 3, np.uint8))
    assert examined() == 1
    assert odd(capsys) == ["labels ≠ masks"]


def test_bad_input(examined: Callable[..., int]) -> None:
    with pytest.raises(UserError, match="at least one"):
        examined("--images", "0")
    write_json("experiment/x/eval_cam.json", {"best": {}})
    with pytest.raises(UserError, match=r"eval_cam.json is no result of evaluation.py"):
        examined()
    for path in Path("experiment/x").glob("*.*"):
        path.unlink()
    with pytest.raises(UserError, match="nothing to examine"):
        examined()
