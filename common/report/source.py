"""A run as the page needs it: images, truth, predictions, card and threshold curve."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.data.dataset import ImageSet, class_names
from common.data.images import ImageFile
from common.data.layout import DataConfig
from common.data.masks import read_mask
from common.report import pictures
from common.run.config import load_config
from common.run.errors import UserError
from common.run.folder import CARD, SEED_SCORES, RunFolder
from common.score.bins import ThresholdBins
from common.score.card import read_card, read_counts
from common.score.files import FilePredictions, Prediction
from common.score.image_counts import PerImage
from common.score.options import EvaluationConfig, shared_sections
from common.score.read import read_score

MOST_THRESHOLDS = 255  # a byte


class Source(ABC):
    """A run on the page.

    Attributes:
        title: as it was named.
        run: its folder.
        task: kind of the predictions: ``cam`` for seeds, ``box`` for boxes, else labels.
        list_name: the shown list.
        labels: names of all labels, background first.
        thresholds: of the slider, float (T,); None where labels are predicted.
    """

    title: str
    run: RunFolder
    task: str
    list_name: str
    labels: list[str]
    thresholds: np.ndarray | None

    @property
    @abstractmethod
    def ids(self) -> list[str]:
        """Ids of the list's images, each once."""

    @abstractmethod
    def file(self, image_id: str) -> ImageFile:
        """An image's file."""

    @abstractmethod
    def truth(self, image_id: str, shape: tuple[int, int]) -> dict[str, Any]:
        """What the page has of an image's truth; empty if there is none."""

    @abstractmethod
    def entry(self, image_id: str, shape: tuple[int, int]) -> dict[str, Any]:
        """What the page has of the prediction of an image.

        Raises:
            UserError: the file is missing, damaged, or of another size.
        """

    @abstractmethod
    def image_scores(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Scores of single images, ``iou`` (percent) among them; empty dictionaries where there is no truth."""


class MaskSource(Source):
    """A run of seeds or masks.

    Attributes:
        images: those of the list.
        folder: of the predictions.
    """

    images: ImageSet
    folder: Path

    @property
    def ids(self) -> list[str]:
        """As `Source.ids`."""
        return list(self._places)

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {self.images.ids[index]: index for index in self.images.unique()}

    @functools.cached_property
    def _bins(self) -> ThresholdBins | None:
        if self.thresholds is None:
            return None
        if len(self.thresholds) > MOST_THRESHOLDS:
            raise UserError(
                f"{self.title} was scored at {len(self.thresholds)} thresholds, and a page has at most "
                f"{MOST_THRESHOLDS}: run evaluation.py with a larger step in eval.thresholds"
            )
        return ThresholdBins(self.thresholds)

    def file(self, image_id: str) -> ImageFile:
        """As `Source.file`."""
        return self.images.file(self._places[image_id])

    def truth(self, image_id: str, shape: tuple[int, int]) -> dict[str, Any]:
        """The true mask, if there is one of the image's size."""
        path = self.images.mask_path(image_id)
        labels = read_mask(path) if path.is_file() else None
        return {"truth": pictures.plane(labels)} if labels is not None and labels.shape == shape else {}

    def entry(self, image_id: str, shape: tuple[int, int]) -> dict[str, Any]:
        """As `Source.entry`."""
        return pictures.prediction_entry(_prediction(self.folder, self.task, image_id, shape), self._bins, shape)


class ScoredRun(MaskSource):
    """One evaluation of a run, by ``NAME`` or ``NAME:STEM``.

    Attributes:
        stem: name of the evaluation's files.
        score: the content of ``<stem>.json``.
        card: the content of ``<stem>_card.json``.
        point: the reported point of the card, for example ``best``.
    """

    def __init__(self, text: str) -> None:
        """Opens the evaluation.

        Raises:
            UserError: run, score or card is missing or damaged; the message names the command that makes them.
        """
        name, _, stem = text.partition(":")
        self.title = text
        self.run = RunFolder(name).existing()
        self.stem = stem or SEED_SCORES
        path = self.run.scores(self.stem)
        if not path.is_file():
            there = sorted(file.name.removesuffix(CARD) for file in self.run.path.glob(f"*{CARD}"))
            others = f" There are: {', '.join(f'{name}:{other}' for other in there)}." if there else ""
            raise UserError(
                f"no score {path}; make it with: python evaluation.py --name {name} --dict_dir dict --card.{others} "
                "Without true masks: --list LIST --dict_dir dict"
            )
        self.score = read_score(path, ["task", "source", "list", "images"])
        self.card = read_card(self.run.path, self.stem)
        self.point: str = self.card["main"]
        own = self.card["points"][self.point]
        if not {"classes", "confusion"} <= own.keys() or own["classes"].keys() != set(self.card["labels"]):
            raise UserError(f"the card beside {path} lacks classes or confusions; run evaluation.py --card again")
        self.task = str(self.score["task"])
        self.list_name = str(self.score["list"])
        self.labels = list(self.card["labels"])
        self.folder = Path(self.score["source"])
        self.images = ImageSet(data_of(self.run), self.list_name)
        values = self.score.get("thresholds")
        self.thresholds = np.asarray(values, dtype=np.float32) if values else None

    @functools.cached_property
    def counts(self) -> PerImage:
        """Counts of the single images at the reported point."""
        return read_counts(self.run.path, self.stem, self.point)

    @property
    def ids(self) -> list[str]:
        """Ids of the scored images, which are those of the list unless some were left out."""
        scored = set(self.counts.ids)
        return [image_id for image_id in super().ids if image_id in scored]

    def image_scores(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The mean IoU over labels in an image, missed and extra pixels as shares of the union, and its labels."""
        counts = self.counts
        place = {image_id: number for number, image_id in enumerate(counts.ids)}
        rows = []
        for image_id in ids:
            number = place[image_id]
            truth, predicted, correct = (
                values[0, number] for values in (counts.truth, counts.predicted, counts.correct)
            )
            union = truth + predicted - correct
            share = np.where(union > 0, correct / np.maximum(union, 1), np.nan)
            wrong = max(int(union[1:].sum()), 1)
            rows.append({
                "iou": round(100 * float(np.nanmean(share)), 2),
                "missed": round(100 * float((truth - correct)[1:].sum()) / wrong, 2),
                "extra": round(100 * float((predicted - correct)[1:].sum()) / wrong, 2),
                "labels": (np.flatnonzero(truth[1:]) + 1).tolist(),
            })  # fmt: skip
        return rows


class UnscoredRun(MaskSource):
    """A folder of predictions whose images have no true masks."""

    def __init__(self, name: str, folder: str, list_name: str, task: str) -> None:
        """Opens the folder.

        Args:
            folder: inside the run's.

        Raises:
            UserError: it does not exist.
        """
        self.title = name
        self.run = RunFolder(name).existing()
        self.folder = self.run.path / folder
        if not self.folder.is_dir():
            raise UserError(f"no folder of predictions {self.folder}; --dict_dir names it")
        self.task = task
        self.list_name = list_name
        data = data_of(self.run)
        self.images = ImageSet(data, list_name)
        self.labels = ["background", *class_names(data)]
        self.thresholds = (
            np.asarray(load_config(EvaluationConfig).eval.grid(), dtype=np.float32) if task == "cam" else None
        )

    def image_scores(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """None."""
        return [{} for _ in ids]


def data_of(run: RunFolder) -> DataConfig:
    """The data set that a run's configuration names."""
    return load_config(EvaluationConfig, None, shared_sections(run.config)).data


def _prediction(folder: Path, task: str, image_id: str, shape: tuple[int, int]) -> Prediction:
    found = FilePredictions(folder, task)(image_id, shape)
    maps = found.values() if isinstance(found, dict) else [found]
    if any(values.shape != shape for values in maps):
        raise UserError(f"the prediction of {image_id} in {folder} is not of the image's size {shape}")
    return found
