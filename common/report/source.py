"""A scored run as the page needs it: predictions, truth, card and threshold curve."""

import functools
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from common.data.dataset import ImageSet, class_names
from common.data.layout import DataConfig
from common.run.config import load_config
from common.run.errors import UserError
from common.run.folder import CARD, SEED_SCORES, RunFolder
from common.score.card import read_card, read_counts
from common.score.files import FilePredictions, Prediction
from common.score.image_counts import PerImage
from common.score.options import EvaluationConfig, shared_sections
from common.score.read import read_score


class ScoredRun:
    """One evaluation of a run, by ``NAME`` or ``NAME:STEM``.

    Attributes:
        title: as it was named.
        run: its folder.
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

    @property
    def task(self) -> str:
        """``cam`` for seeds, else labels."""
        return str(self.score["task"])

    @property
    def list_name(self) -> str:
        """The scored list."""
        return str(self.score["list"])

    @property
    def labels(self) -> list[str]:
        """Names of all labels, background first."""
        return list(self.card["labels"])

    @property
    def thresholds(self) -> np.ndarray | None:
        """Background thresholds of the curve, float32; None where labels are predicted."""
        values = self.score.get("thresholds")
        return None if not values else np.asarray(values, dtype=np.float32)

    @functools.cached_property
    def counts(self) -> PerImage:
        """Counts of the single images at the reported point."""
        return read_counts(self.run.path, self.stem, self.point)

    @functools.cached_property
    def data(self) -> DataConfig:
        """The data set."""
        return data_of(self.run)

    @functools.cached_property
    def images(self) -> ImageSet:
        """The images of the scored list."""
        return ImageSet(self.data, self.list_name)

    def prediction(self, image_id: str, shape: tuple[int, int]) -> Prediction:
        """Seed or labels of an image.

        Raises:
            UserError: the file is missing, damaged, or of another size.
        """
        return _prediction(Path(self.score["source"]), self.task, image_id, shape)


class UnscoredRun:
    """A folder of predictions whose images have no true masks; offers what the page needs of `ScoredRun`."""

    stem = ""
    score: ClassVar[dict[str, Any]] = {}
    card: ClassVar[dict[str, Any]] = {}
    point = ""

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
        self.data = data_of(self.run)
        self.images = ImageSet(self.data, list_name)
        self.labels = ["background", *class_names(self.data)]
        self.thresholds = (
            np.asarray(load_config(EvaluationConfig).eval.grid(), dtype=np.float32) if task == "cam" else None
        )
        self.counts: PerImage | None = None

    def prediction(self, image_id: str, shape: tuple[int, int]) -> Prediction:
        """As `ScoredRun.prediction`."""
        return _prediction(self.folder, self.task, image_id, shape)


Source = ScoredRun | UnscoredRun


def data_of(run: RunFolder) -> DataConfig:
    """The data set that a run's configuration names."""
    return load_config(EvaluationConfig, None, shared_sections(run.config)).data


def _prediction(folder: Path, task: str, image_id: str, shape: tuple[int, int]) -> Prediction:
    found = FilePredictions(folder, task)(image_id, shape)
    maps = found.values() if isinstance(found, dict) else [found]
    if any(values.shape != shape for values in maps):
        raise UserError(f"the prediction of {image_id} in {folder} is not of the image's size {shape}")
    return found
