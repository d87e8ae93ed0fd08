"""Scored runs for the tests of the report, and what is in its page.

The seeds are random and smooth, of generated images, without any network.
"""

import io
import json
import re
from pathlib import Path

import cv2
import numpy as np
import yaml
from PIL import Image

from common.data.cub import CUBConfig, CUBImages
from common.data.dataset import LabelledImages
from common.data.layout import DataConfig
from common.data.seeds import write_seed
from common.report.packed import unpacked
from common.run.files import write_json
from common.run.folder import BOX_SCORES, RunFolder
from common.score.boxes import boxes_path
from methods.crt.boxes import cam_box, true_box
from methods.crt.localization import Located, judge
from methods.crt.max_box import box_sweep
from methods.crt.wsol_scoring import Finding, box_file, with_intervals
from tests.helpers import evaluation_script

SIDE = 64  # of the square of `located_run`


def scored_run(data: Path, name: str, seed: int = 0, card: bool = True) -> RunFolder:
    """A run in the current folder with seeds of the validation images, scored; its method is CTI.

    Args:
        data: a data set of ``make_shapes.py``.
        seed: of the maps.
    """
    run = RunFolder(name)
    (run.path / "dict").mkdir(parents=True)
    sections = {"root": str(data), "labels": f"{data}/Annotations", "classes": f"{data}/classes.txt"}
    content = {"method": "CTI", "data": {"dataset": "voc12", **sections}, "runtime": {"seed": seed}}
    run.config.write_text(yaml.safe_dump(content))
    run.metrics.write_text('{"step": 1, "kind": "train", "total": 0.5}\n{"step": 2, "kind": "train", "total": 0.4}\n')
    images = LabelledImages(DataConfig(**content["data"]), "val")
    rng = np.random.default_rng(seed)
    for index, image_id in enumerate(images.ids):
        height, width = np.array(images.load_image(index)).shape[:2]
        maps = {
            key: np.clip(cv2.resize(rng.random((6, 6), dtype=np.float32), (width, height)), 0, 1)
            for key in np.flatnonzero(images.labels[index]).tolist()
        }
        write_seed(run.path / "dict", image_id, maps)
    if card:
        arguments = "--name", name, "--task", "cam", "--dict_dir", "dict", "--list", "val", "--card"
        evaluation_script().main([*arguments, "--num_workers", "1"])
    return run


def located_run(data: Path, name: str, seed: int = 0) -> RunFolder:
    """A run in the current folder with boxes of the test images, from random maps, of weights ``best`` and ``last``.

    Args:
        data: a data set of ``make_cub_shapes.py``.
        seed: of the maps and classes.
    """
    run = RunFolder(name)
    run.path.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump({"method": "CRT localisation", "data": {"root": str(data)}}))
    images = CUBImages(CUBConfig(str(data)), "test")
    rng = np.random.default_rng(seed)
    weights = {}
    for kind in ("best", "last"):
        findings = []
        for index, label in enumerate(images.targets.tolist()):
            cam = cv2.GaussianBlur(rng.random((14, 14), dtype=np.float32), (5, 5), 1.5)
            size = images.load_image(index).size
            truth = true_box(images.boxes[index], size, SIDE)[None]
            box = cam_box(cam, SIDE, 0.1)
            top = np.array([label if rng.random() < 0.7 else 1 - min(label, 1)])
            located = Located(top, box[None], label, box, truth)
            findings.append(Finding(index, size, located, judge(located), cam, box_sweep(cam, SIDE, truth)))
        box_file(findings, images, SIDE, 0.1).write(boxes_path(run.path, kind))
        weights[kind] = {"chosen_on": "test" if kind == "best" else None, **with_intervals(findings, None)}
    write_json(run.scores(BOX_SCORES), {"list": "test", "weights": weights})
    return run


def pixels(picture: bytes) -> np.ndarray:
    """The decoded picture, uint8 (H, W, 3)."""
    return np.array(Image.open(io.BytesIO(picture)).convert("RGB"))


def plane_of(picture: bytes) -> np.ndarray:
    """The numbers of a lossless picture."""
    return pixels(picture)[..., 1]


def smooth_plane_of(picture: bytes) -> np.ndarray:
    """The numbers whose differences a picture has."""
    return np.cumsum(np.cumsum(plane_of(picture), axis=0, dtype=np.uint8), axis=1, dtype=np.uint8)


def data_of(html: bytes) -> dict:
    """The data inside a page."""
    return json.loads(re.search(rb'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


def picture_at(html: bytes, place: list[int]) -> bytes:
    """A picture of a page."""
    return unpacked(html.partition(b'id="pictures">')[2], place)
