"""The folder of predictions:

masks/<id>.png       palette PNG of label indices, of the image's size
overlays/<id>.jpg    the image under its mask, with a legend
seeds/<id>.npy       on request: the maps of a classifier
records/<id>.json    the image's rows of the table; written last, so that an image with a record is complete
predictions.csv      a row for each image and class, of all images in the folder
manifest.json        weights, configuration, thresholds, versions
"""

import csv
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from common.data.images import ImageFile
from common.data.outputs import MaskFolder
from common.data.seeds import write_seed
from common.data.stamp import MASKS, Stamp, stamp_of
from common.predict.photos import RECORDS, Photos, name_in_folder
from common.predict.predictor import Prediction, Predictor
from common.run.errors import UserError
from common.run.files import atomic_write, has_content, sweep, write_json
from common.run.lock import lock
from common.run.provenance import provenance
from common.visual import save_prediction

COLUMNS = ("image", "class", "score", "pixels", "left", "top", "width", "height")
TABLE = "predictions.csv"
EMPTY = {**dict.fromkeys(COLUMNS[1:], ""), "pixels": 0}  # the row of an image without classes


class ResultFolder:
    """The files of the predictions of one network."""

    def __init__(
        self, path: Path, predictor: Predictor, photos: Photos, overwrite: bool = False, has_seeds: bool = False
    ) -> None:
        """Opens the folder; predictions of changed images are made again.

        Args:
            overwrite: whether predictions of other settings are deleted.
            has_seeds: whether seeds are written, too.

        Raises:
            UserError: it holds predictions of other weights or settings and ``overwrite`` is not given, it is in use by
                another process, or the network has no seeds.
        """
        if has_seeds and predictor.is_segmenter:
            raise UserError(f"{predictor.config.method} predicts masks without seeds; leave out --seeds")
        self.path, self.has_seeds, self.classes, self.rules = path, has_seeds, predictor.classes, photos.rules
        runtime = predictor.runtime
        self.is_main = runtime.processes.is_main
        runtime.processes.on_main(self._make)
        stamp: Stamp = stamp_of(MASKS, predictor.config.method, predictor.settings(), photos)
        self.masks = MaskFolder(path / "masks", stamp, runtime, overwrite, "another --out")
        runtime.processes.on_main(self._forget_deleted)
        self._manifest = {
            "method": predictor.config.method, "weights": str(predictor.weights),
            "sha256": predictor.sha256(), "classes": predictor.classes,
            "configuration": dataclasses.asdict(predictor.config), "settings": predictor.settings(),
        }  # fmt: skip

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {self.path} cannot be made: {error.strerror or error}") from error
        lock(self.path, elsewhere="another --out")
        sweep(self.path)

    def _forget_deleted(self) -> None:
        """Deletes what is left of predictions whose mask has been deleted: of other settings, or of a changed image."""
        for record in (self.path / RECORDS).glob("*.json"):
            if not self.masks.is_done(record.stem):
                for path in (record, self.overlay(record.stem), self.path / "seeds" / f"{record.stem}.npy"):
                    path.unlink(missing_ok=True)

    def record(self, image_id: str) -> Path:
        """Path of an image's rows."""
        return self.path / RECORDS / f"{image_id}.json"

    def overlay(self, image_id: str) -> Path:
        """Path of an image's overlay."""
        return self.path / "overlays" / f"{image_id}.jpg"

    def is_done(self, image_id: str) -> bool:
        """Whether all files of an image are there."""
        needed = [self.record(image_id), self.masks.file(image_id)]
        needed += [self.path / "seeds" / f"{image_id}.npy"] if self.has_seeds else []
        return all(map(has_content, needed))

    def write(self, prediction: Prediction) -> None:
        """Writes all files of an image."""
        image_id = prediction.image_id
        self.masks.write(image_id, prediction.mask)
        if self.has_seeds:
            write_seed(self.path / "seeds", image_id, prediction.seed)
        rows = list(class_rows(prediction, self.classes))
        image = np.asarray(ImageFile(prediction.path, self.rules).read())
        save_prediction(self.overlay(image_id), image, prediction.mask, self.classes, prediction.scores)
        with atomic_write(self.record(image_id), "w", durable=False) as stream:
            json.dump({"image": str(prediction.path), "size": prediction.mask.shape, "classes": rows}, stream)

    def images(self) -> Iterator[tuple[str, str]]:
        """Yields id and file name, with sub-folders, of all images in the folder."""
        for path in sorted((self.path / RECORDS).glob("*.json")):
            image = Path(json.loads(path.read_text(encoding="utf-8"))["image"])
            yield path.stem, name_in_folder(path.stem, image)

    def close(self) -> None:
        """Writes table and manifest of all images in the folder; the main process, when all are done."""
        with atomic_write(self.path / TABLE, "w") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(COLUMNS)
            for path in sorted((self.path / RECORDS).glob("*.json")):
                record = json.loads(path.read_text(encoding="utf-8"))
                for row in record["classes"] or [EMPTY]:
                    table.writerow([record["image"], *(row[name] for name in COLUMNS[1:])])
        write_json(self.path / "manifest.json", {**self._manifest, "origin": provenance()})


def class_rows(prediction: Prediction, classes: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of an image: its classes with score, pixels and the box of the largest connected part.

    There is no box of a class without pixels.
    """
    for name, score in prediction.scores.items():
        pixels = (prediction.mask == classes.index(name) + 1).astype(np.uint8)
        box = {}
        if pixels.any():
            _, _, parts, _ = cv2.connectedComponentsWithStats(pixels, connectivity=8)
            largest = max(parts[1:].tolist(), key=lambda part: part[cv2.CC_STAT_AREA])
            box = dict(zip(COLUMNS[-4:], largest, strict=False))
        yield {**EMPTY, "class": name, "score": round(score, 4), "pixels": int(pixels.sum()), **box}
