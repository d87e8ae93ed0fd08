"""Configuration of a pipeline. Imports no PyTorch."""

from dataclasses import dataclass
from typing import ClassVar

from common.data.layout import DataConfig
from common.masks.options import SeedsConfig
from common.run.config import Rule, option, section
from common.score.options import EvalConfig

REFINEMENTS = ("irn", "psa", "crf")

NOT_EMPTY = Rule("the name of a list", bool)


@dataclass
class FlowConfig:
    """The stages of the pipeline."""

    first: str = option(
        "seeds", "Where to begin: seeds are refined; masks are taken as they are.", flag="--from",
        choices=("seeds", "masks"),
    )  # fmt: skip
    refine: str = option(
        "irn", "Refinement of seeds to masks: IRN, PSA, or a dense CRF alone.", flag="--refine", choices=REFINEMENTS
    )
    segment: str = option(
        "deeplab", "The network that learns from the masks: DeepLabV2 or a ViT segmenter; none: the masks are the end.",
        flag="--segment", choices=("deeplab", "vitseg", "none"),
    )  # fmt: skip


@dataclass
class ListsConfig:
    """Image lists of all stages."""

    train: str = option(
        "train_aug", "Images that masks are made for, and which the networks are trained on.", rule=NOT_EMPTY
    )
    score: str = option("train", "Images among them whose seeds and masks are scored.", rule=NOT_EMPTY)
    val: str = option("val", "Held-out images, on which the segmentation network is tested.", rule=NOT_EMPTY)


@dataclass
class StageConfig:
    """The scripts of a stage."""

    exp: str = option("", "Their experiment: a YAML in configs/ or a path to one.")
    overrides: list[str] = option([], "Settings on top of it, as key=value.")


@dataclass
class PipelineConfig:
    """All sections of a pipeline."""

    method: ClassVar[str] = "pipeline"
    data: DataConfig = section(DataConfig)
    seeds: SeedsConfig = section(SeedsConfig)
    flow: FlowConfig = section(FlowConfig)
    lists: ListsConfig = section(ListsConfig)
    crf: StageConfig = section(StageConfig, exp="crf_voc")
    irn: StageConfig = section(StageConfig, exp="irn_cti")
    psa: StageConfig = section(StageConfig, exp="psa_voc")
    deeplab: StageConfig = section(StageConfig, exp="deeplab_voc")
    vitseg: StageConfig = section(StageConfig, exp="vitseg_voc")
    eval: EvalConfig = section(EvalConfig)


def data_overrides(data: DataConfig, own: DataConfig) -> list[str]:
    """The keys in which a pipeline's data set differs from a stage's own, as key=value texts."""
    return [f"data.{key}={value}" for key, value in vars(data).items() if value != getattr(own, key)]
