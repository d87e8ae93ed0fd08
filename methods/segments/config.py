"""Configuration of segments and of the vote over them. Imports no PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from common.data.layout import DataConfig
from common.data.seeds import FORMATS
from common.masks.options import CRFMaskLists, SeedsConfig
from common.run.config import Rule, at_least, option, section
from common.run.errors import UserError
from common.run.options import RuntimeConfig
from common.score.options import EvalConfig

OF_NETWORKS = ("sam", "sam2", "sam3")
SEGMENTERS = ("meanshift", "slic", "felzenszwalb", *OF_NETWORKS)
NO_SEGMENTS = "none"
RULES = ("mean", "max", "weighted")

SHARE = Rule("from 0 to 1", lambda value: 0 <= value <= 1)
ABOVE_0 = Rule("above 0", lambda value: value > 0)


@dataclass
class MeanShiftConfig:
    """Mean shift of colours (OpenCV), then regions of one colour."""

    space: float = option(8.0, "Radius of the window in pixels.", rule=ABOVE_0)
    colour: float = option(16.0, "Radius of the window in units of 8-bit RGB.", rule=ABOVE_0)
    join: int = option(
        6, "Neighbours are of one region if no channel differs by more than this after the shift.", rule=at_least(0)
    )
    smallest: int = option(20, "Regions of fewer pixels are no segments.", rule=at_least(1))

    def check(self) -> None:
        """Checks the range of ``join``.

        Raises:
            UserError: it is no difference of 8-bit values.
        """
        if self.join > 255:
            raise UserError(f"segments.meanshift.join={self.join}: 8-bit values differ by at most 255")


@dataclass
class SlicConfig:
    """SLIC superpixels (scikit-image)."""

    count: int = option(200, "About this many segments an image.", rule=at_least(1))
    compactness: float = option(10.0, "Weight of the distance against the difference of colours.", rule=ABOVE_0)
    sigma: float = option(1.0, "Width of the Gaussian that smooths the image before, in pixels.", rule=at_least(0))


@dataclass
class FelzenszwalbConfig:
    """Felzenszwalb and Huttenlocher's graph-based segments (scikit-image)."""

    scale: float = option(100.0, "The larger, the larger the segments.", rule=ABOVE_0)
    sigma: float = option(0.8, "Width of the Gaussian that smooths the image before, in pixels.", rule=at_least(0))
    smallest: int = option(50, "Smallest segment in pixels.", rule=at_least(1))


@dataclass
class SamConfig:
    """A segment-anything model, by transformers' pipeline for mask generation."""

    weights: str = option(
        "", "A local folder of weights as transformers saves them, or a name on the hub; empty: none is loaded."
    )
    points_per_batch: int = option(64, "Points that are prompts of one forward pass.", rule=at_least(1))
    smallest: int = option(20, "Regions of fewer pixels are no segments.", rule=at_least(1))


@dataclass
class SegmentsSection:
    """The segments of the images."""

    folder: str = option(
        "", "Folder of segment files, or one JSON of COCO's form; empty: the run's own folder segments/, none: no "
        "segments, so that masks are the seeds at a threshold.", flag="--segments",
    )  # fmt: skip
    segmenter: str = option(
        "meanshift", "The way to make segments; sam, sam2 and sam3 are extra supervision.", flag="--with",
        choices=SEGMENTERS,
    )  # fmt: skip
    meanshift: MeanShiftConfig = section(MeanShiftConfig)
    slic: SlicConfig = section(SlicConfig)
    felzenszwalb: FelzenszwalbConfig = section(FelzenszwalbConfig)
    sam: SamConfig = section(SamConfig)

    def settings(self) -> dict[str, Any]:
        """All keys that the segments depend on."""
        own = self.sam if self.is_extra_supervision else getattr(self, self.segmenter)
        return {"segmenter": self.segmenter, **vars(own)}

    @property
    def is_extra_supervision(self) -> bool:
        """Whether a network makes them that was trained on masks."""
        return self.segmenter in OF_NETWORKS

    def path(self, own: Path) -> Path | None:
        """Where the segments are; None: there shall be none.

        Args:
            own: the run's own folder of segments.
        """
        return None if self.folder == NO_SEGMENTS else Path(self.folder) if self.folder else own


@dataclass
class VoteSection:
    """The vote, and the masks made of it."""

    rule: str = option(
        "mean", "A segment's value of a class over its pixels: mean, max, or the mean weighted by the pixels' highest "
        "value.", flag="--vote", choices=RULES,
    )  # fmt: skip
    threshold: float = option(
        0.4, "A pixel of a mask is background where no class is above it after the vote.", flag="--threshold",
        rule=at_least(0),
    )  # fmt: skip
    seed_threshold: float = option(
        -1.0,
        "Background's value before the vote, for min_cover and ignore_undecided; -1: threshold.",
        rule=Rule("-1, or from 0 to 1", lambda value: value == -1 or 0 <= value <= 1),
    )
    min_cover: float = option(
        0.0, "Smallest share of a segment with a class's label in the seed for that class to count in it.",
        flag="--min_cover", rule=SHARE,
    )  # fmt: skip
    ignore_undecided: bool = option(
        False, "Whether masks are 255 in segments in which no label, background among them, has a majority."
    )
    agreement: str = option("", "Folder of the agreement of fused runs (fuse_seeds.py); empty: none.")
    min_agreement: float = option(
        0.0, "Masks are 255 where less than this share of the fused runs agrees, on average over a segment.",
        rule=SHARE,
    )  # fmt: skip
    tune_on: str = option(
        "", "List with true masks on which a threshold for each class is tuned, into thresholds.json; empty: none.",
        flag="--tune_on",
    )  # fmt: skip
    thresholds: str = option("", "A thresholds.json to use, of another run perhaps; empty: none.", flag="--thresholds")
    format: str = option("npy", "Files of the seeds after the vote: npy or the compact npz.", choices=FORMATS)

    def check(self) -> None:
        """Checks the keys that depend on each other.

        Raises:
            UserError: thresholds are given twice, or a share of agreement without its folder.
        """
        if self.tune_on and self.thresholds:
            raise UserError("vote.tune_on makes thresholds and vote.thresholds reads them; give one of them")
        if self.min_agreement > 0 and not self.agreement:
            raise UserError("vote.min_agreement needs the folder of the agreement: vote.agreement=experiment/NAME/...")

    @property
    def before(self) -> float:
        """Background's value before the vote."""
        return self.threshold if self.seed_threshold < 0 else self.seed_threshold


@dataclass
class SegmentsConfig:
    """All sections of segments and of the vote over them."""

    method: ClassVar[str] = "segments"
    data: DataConfig = section(DataConfig)
    seeds: SeedsConfig = section(SeedsConfig)
    segments: SegmentsSection = section(SegmentsSection)
    vote: VoteSection = section(VoteSection)
    infer: CRFMaskLists = section(CRFMaskLists)
    eval: EvalConfig = section(EvalConfig)
    runtime: RuntimeConfig = section(RuntimeConfig)
