"""Configuration of a pipeline. Imports no PyTorch."""

from dataclasses import dataclass
from typing import ClassVar

from common.data.layout import DataConfig
from common.masks.options import SeedsConfig
from common.run.config import Rule, option, section
from common.run.errors import UserError
from common.score.options import EvalConfig

REFINEMENTS = ("irn", "psa", "crf", "segments")

NOT_EMPTY = Rule("the name of a list", bool)


@dataclass
class FlowConfig:
    """The stages of the pipeline."""

    first: str = option(
        "seeds", "Where to begin: seeds are refined; masks are taken as they are.", flag="--from",
        choices=("seeds", "masks"),
    )  # fmt: skip
    refine: str = option(
        "irn", "Refinement of seeds to masks: IRN, PSA, a dense CRF alone, or a vote over segments.", flag="--refine",
        choices=REFINEMENTS,
    )  # fmt: skip
    fuse: list[str] = option(
        [], "Runs, or folders of seeds, that are fused first; empty: the pipeline's own seeds.", flag="--fuse"
    )
    vote: bool = option(
        False, "Whether seeds vote over segments first, and the refinement takes the seeds after the vote."
    )
    segment: str = option(
        "deeplab", "The network that learns from the masks: DeepLabV2 or a ViT segmenter; none: the masks are the end.",
        flag="--segment", choices=("deeplab", "vitseg", "none"),
    )  # fmt: skip

    def check(self) -> None:
        """Checks the stages.

        Raises:
            UserError: seeds vote twice, or one run alone is fused.
        """
        if self.vote and self.refine == "segments":
            raise UserError("flow.vote is a vote before the refinement, and flow.refine=segments is the vote itself")
        if len(self.fuse) == 1:
            raise UserError(f"--fuse {self.fuse[0]}: two or more runs are fused")


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
    segments: StageConfig = section(StageConfig, exp="segments_voc")
    fusion: StageConfig = section(StageConfig, exp="fusion_voc")
    deeplab: StageConfig = section(StageConfig, exp="deeplab_voc")
    vitseg: StageConfig = section(StageConfig, exp="vitseg_voc")
    eval: EvalConfig = section(EvalConfig)


def data_overrides(data: DataConfig, own: DataConfig) -> list[str]:
    """The keys in which a pipeline's data set differs from a stage's own, as key=value texts."""
    return [f"data.{key}={value}" for key, value in vars(data).items() if value != getattr(own, key)]
