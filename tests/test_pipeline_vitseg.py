"""A pipeline with the ViT segmenter from seeds to its table: the real scripts, called in this process."""

import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from common.data.dataset import read_mask
from common.data.seeds import write_seed
from common.run.files import ROOT
from common.run.lock import unlock_all
from tests.datasets import call, script
from tests.helpers import evaluation_script

TINY = {
    "crf": {"overrides": ["runtime.num_workers=0", "crf.iterations=1"]},
    "vitseg": {
        "exp": "vitseg_demo",
        "overrides": [
            "model.arch=timm:vit_small_patch14_reg4_dinov2", "model.patch_size=8", "model.embed_dim=32",
            "model.depth=2", "model.img_size=32", "views.crop_size=32", "train.batch_size=2", "train.max_steps=2",
            "train.eval_steps=0", "train.keep_steps=0", "infer.scales=[1.0]", "infer.num_workers=0",
            "runtime.num_workers=0", "infer.crf.iterations=1",
        ],
    },
}  # fmt: skip


class InProcess:
    """Stands in for `subprocess.Popen`: calls a script's ``main`` in this process."""

    calls: list[str]

    def __init__(self, command: list[str], **options: object) -> None:
        file = next(part for part in command[1:] if part.startswith(str(ROOT)))
        name = Path(file).relative_to(ROOT).with_suffix("").as_posix()
        arguments = command[command.index(file) + 1 :]
        self.calls.append(name)
        before, handlers = sys.argv, [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        sys.argv = [file, *arguments]
        try:
            if name == "evaluation":
                self.code = evaluation_script().main(arguments) or 0
            else:
                folder, _, stem = name.rpartition("/")
                module = script(stem) if folder == "scripts" else importlib.import_module(name.replace("/", "."))
                self.code = module.main() or 0
        finally:
            sys.argv = before
            for number, handler in zip((signal.SIGTERM, signal.SIGINT), handlers, strict=True):
                signal.signal(number, handler)
            unlock_all()

    def wait(self) -> int:
        """The exit code."""
        return self.code


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_from_seeds_to_a_vit_segmenter(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """``--segment vitseg`` trains on the masks, segments held-out images, and stands in the table; then all is done."""
    monkeypatch.chdir(tmp_path)
    for file in sorted((shapes / "SegmentationClass").iterdir()):
        mask = read_mask(file)
        labels = [int(label) for label in np.unique(mask) if label not in (0, 255)]
        blurred = {label - 1: cv2.GaussianBlur((mask == label).astype(np.float32), (0, 0), 3) for label in labels}
        write_seed(Path("experiment/x/dict"), file.stem, {key: cam / cam.max() for key, cam in blurred.items()})
    data = {"root": str(shapes), "classes": str(shapes / "classes.txt"), "labels": str(shapes / "Annotations")}
    lists = {"train": "train", "score": "train", "val": "val"}
    Path("own.yaml").write_text(yaml.safe_dump({"data": data, "lists": lists, **TINY}), encoding="utf-8")
    monkeypatch.setattr(subprocess, "Popen", InProcess)
    monkeypatch.setattr("common.pipeline.stages._end_of", lambda process: (process.wait(), 0))
    arguments = "--name", "x", "--exp", "own.yaml", "--refine", "crf", "--segment", "vitseg"
    InProcess.calls = []
    assert call(monkeypatch, "run_pipeline", *arguments) == 0
    assert InProcess.calls == [
        "evaluation", "evaluation", "scripts/crf_masks", "methods/vitseg/train_vitseg", "methods/vitseg/test_vitseg",
    ]  # fmt: skip
    assert "ViT segmenter" in capsys.readouterr().out
    rows = {row["stage"]: row for row in json.loads(Path("experiment/x/pipeline_crf.json").read_text())["table"]}
    scores = json.loads(Path("experiment/x_crf_vitseg/eval_png.json").read_text())
    assert rows["ViT segmenter"]["list"] == "val"
    assert rows["ViT segmenter"]["mIoU"] == pytest.approx(scores["best"]["mIoU"])
    assert rows["masks (crf)"]["mIoU"] > 60 and "ViT segmenter after the CRF" in rows
    InProcess.calls.clear()
    assert call(monkeypatch, "run_pipeline", *arguments) == 0
    assert InProcess.calls == [] and capsys.readouterr().out.count("complete, skipped") == 5
