"""Pipelines: their configuration, and the table of scores at their end."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.dataset import DataConfig
from common.masks.from_seeds import SeedsConfig
from common.pipeline.stages import read_json
from common.run.config import Rule, option, section
from common.run.errors import UserError
from common.score.result import EvalConfig

REFINEMENTS = ("irn", "psa", "crf")
NOT_EMPTY = Rule("the name of a list", bool)


@dataclass
class FlowConfig:
    """Which stages there are."""

    first: str = option(
        "seeds", "Where to begin: seeds are refined; masks are taken as they are.", flag="--from",
        choices=("seeds", "masks"),
    )  # fmt: skip
    refine: str = option(
        "irn", "What makes masks of seeds: IRN, PSA, or a dense CRF alone.", flag="--refine", choices=REFINEMENTS
    )
    segment: str = option(
        "deeplab", "The network that learns from the masks; none: the masks are the end.", flag="--segment",
        choices=("deeplab", "none"),
    )  # fmt: skip


@dataclass
class ListsConfig:
    """Image lists of all stages."""

    train: str = option(
        "train_aug", "Images that masks are made for, and which the networks are trained on.", rule=NOT_EMPTY
    )
    score: str = option("train", "Those of them whose seeds and masks are scored.", rule=NOT_EMPTY)
    val: str = option("val", "Held-out images, on which the segmentation network is tested.", rule=NOT_EMPTY)


@dataclass
class StageConfig:
    """The scripts of a stage."""

    exp: str = option("", "Their experiment: a YAML in configs/ or a path to one.")
    overrides: list[str] = option([], "Settings that they get on top of it, as key=value.")


@dataclass
class PipelineConfig:
    """All sections of a pipeline."""

    data: DataConfig = section(DataConfig)
    seeds: SeedsConfig = section(SeedsConfig)
    flow: FlowConfig = section(FlowConfig)
    lists: ListsConfig = section(ListsConfig)
    crf: StageConfig = section(StageConfig, exp="crf_voc")
    irn: StageConfig = section(StageConfig, exp="irn_cti")
    psa: StageConfig = section(StageConfig, exp="psa_voc")
    deeplab: StageConfig = section(StageConfig, exp="deeplab_voc")
    eval: EvalConfig = section(EvalConfig)


@dataclass(frozen=True)
class Score:
    """A row of the table: an evaluation's JSON, and which of its points."""

    stage: str
    file: Path
    list_name: str
    point: str = "best"

    def row(self) -> dict[str, Any] | None:
        """Stage, list, images, threshold and mIoU (percent); None if there is no such score of this list.

        Raises:
            UserError: the file is damaged.
        """
        if not is_scored(self.file, self.list_name):
            return None
        content = read_json(self.file)
        try:
            point = content[self.point]
            return {
                "stage": self.stage, "list": self.list_name, "images": content["images"],
                "threshold": point["threshold"], "mIoU": float(point["mIoU"]),
            }  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.file} is no evaluation ({type(error).__name__}: {error}); delete it") from error


def is_scored(file: Path, list_name: str) -> bool:
    """Whether an evaluation of a list is there."""
    return file.is_file() and read_json(file).get("list") == list_name


def data_overrides(data: DataConfig, own: DataConfig) -> list[str]:
    """What makes the data set of a stage's own configuration the pipeline's, as key=value texts."""
    return [f"data.{key}={value}" for key, value in vars(data).items() if value != getattr(own, key)]


def with_gains(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """The rows of a pipeline's table; ``gain``: mIoU above the first row of the same list, that of its seeds."""
    rows = [row for score in scores if (row := score.row())]
    seeds: dict[str, float] = {}
    for row in rows:
        row["gain"] = row["mIoU"] - seeds.setdefault(row["list"], row["mIoU"])
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as lines of text."""
    width = max([len(row["stage"]) for row in rows] + [5])
    lists = max([len(Path(row["list"]).stem) for row in rows] + [4])
    lines = [f"{'stage':<{width}}  {'list':<{lists}}  images  mIoU (%)   gain"]
    lines += [
        f"{row['stage']:<{width}}  {Path(row['list']).stem:<{lists}}  {row['images']:>6}  {row['mIoU']:>8.2f}  "
        f"{row['gain']:>+5.2f}"
        for row in rows
    ]
    return "\n".join(lines)
