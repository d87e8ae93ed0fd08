"""Scores of predictions on a labelled list: how well the network tells the classes, and what its mistakes cost."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from common.data.dataset import LabelledImages
from common.predict.predictor import Predictor
from common.score.files import Prediction
from common.score.images import has_masks
from common.score.report import score_in_memory


class ListScores(NamedTuple):
    """Scores of a list.

    Attributes:
        f1: of all pairs of image and class, as the network tells the classes; from 0 to 1.
        told: mIoU of the masks in percent, with these classes; None without true masks.
        given: the same with the labelled classes.
    """

    f1: float
    told: float | None = None
    given: float | None = None

    def __str__(self) -> str:
        masks = f"; {self.told:.1f} mIoU, {self.given:.1f} with the labelled classes" if self.told is not None else ""
        return f"class F1 {self.f1:.3f}{masks}"


def score_list(predictor: Predictor, list_name: str) -> ListScores:
    """Predicts a labelled list of the configuration's data set, without and with its labels; collective.

    Raises:
        UserError: images or labels are missing, or an image cannot be read.
    """
    images = LabelledImages(predictor.config.data, list_name)
    images.require_labels(every=False)
    indices = images.unique()
    photos = predictor.photos({images.ids[index]: images.images[index] for index in indices})
    found: dict[str, list[bool]] = {}

    def predicted() -> Iterator[tuple[str, Prediction]]:
        for prediction in predictor.predict(photos):
            found.setdefault(prediction.image_id, [name in prediction.scores for name in predictor.classes])
            yield prediction.image_id, prediction.mask

    def miou() -> float:
        config, processes = predictor.config.eval, predictor.runtime.processes
        return score_in_memory(predicted(), images, config, "png", processes, "predictions in memory").best.miou

    if not has_masks(images):
        for _ in predicted():
            pass
        return ListScores(_f1(predictor, found, images))
    told = miou()
    f1 = _f1(predictor, found, images)
    photos.labels = images.labels[indices]
    return ListScores(f1, told, miou())


def _f1(predictor: Predictor, found: dict[str, list[bool]], images: LabelledImages) -> float:
    """The F1 of the classes that all processes have found in their images."""
    parts = predictor.runtime.processes.gather_objects(found)
    rows = {image_id: row for part in parts for image_id, row in part.items()}
    truth = np.stack([images.labels[index] > 0 for index in images.unique()])
    told = np.stack([rows[images.ids[index]] for index in images.unique()])
    return 2 * float((told & truth).sum()) / max(float(told.sum() + truth.sum()), 1.0)
