"""Scored runs for the tests of the report: random smooth seeds of generated images, without any network."""

from pathlib import Path

import cv2
import numpy as np
import yaml

from common.data.dataset import LabelledImages
from common.data.layout import DataConfig
from common.data.seeds import write_seed
from common.run.folder import RunFolder
from tests.helpers import evaluation_script


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
