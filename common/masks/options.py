"""Configuration sections of mask inference, and of the seeds that masks are made from. Imports no PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from common.crf.options import CRFConfig
from common.data.layout import DataConfig
from common.run.config import ABOVE_ZERO, at_least, between, option, section
from common.run.errors import UserError
from common.run.options import RuntimeConfig
from common.seeds.options import OVERLAP, OVERLAP_HELP, SCALES, TILE, TILE_HELP, tile_settings

CAFFE_MEAN_BGR = (104.008, 116.669, 122.675)  # of pixels 0 ... 255


@dataclass
class SegmentViews:
    """Flips and scales, and the rules that join their logits."""

    resize: int = option(
        0, "Side of the square that images are brought to, which the scales multiply; 0: their own size.",
        rule=at_least(0),
    )  # fmt: skip
    scales: list[float] = option([1.0, 1.5, 1.25], "Image scales.", rule=SCALES)
    flip: str = option(
        "sum", "Rule that joins the logits of image and mirror image; none: no mirror image.",
        choices=("sum", "max", "none"),
    )  # fmt: skip
    merge: str = option("max", "Rule that joins the scales.", choices=("max", "sum"))


@dataclass
class SegmentConfig(SegmentViews):
    """Inference of masks; the defaults are ToCo's for VOC."""

    image_list: str = option("val", "Images to segment.", flag=("--infer_list", "--infer_set", "--infer"))
    batch_size: int = option(4, "Images of one size that go through the network together.", rule=at_least(1))
    tile: int = option(0, TILE_HELP, rule=TILE)
    overlap: float = option(OVERLAP, OVERLAP_HELP, rule=between(0, 0.5))
    num_workers: int = option(
        8, "Image-loader worker processes; also the processes of --crf.", flag="--num_workers", rule=at_least(0)
    )
    crf: CRFConfig = section(
        CRFConfig, gaussian_sxy=1.0, gaussian_compat=1.0, bilateral_sxy=121.0, bilateral_srgb=5.0, bilateral_compat=4.0
    )

    def settings(self) -> dict[str, Any]:
        """All keys that the masks before the CRF depend on."""
        views = {name: getattr(self, name) for name in ("resize", "flip", "merge", "batch_size")}
        return {**views, "scales": list(self.scales), **tile_settings(self.tile, self.overlap)}


@dataclass
class MaskViewConfig:
    """The network's input, and the random crop of a training image."""

    input: str = option(
        "caffe", "Form of the inputs, as for the first weights: caffe (BGR from 0 to 255 minus the mean) or imagenet "
        "(normalised RGB, as of torchvision and timm).",
        choices=("caffe", "imagenet"),
    )  # fmt: skip
    crop_size: int = option(321, "Side of the crop, in pixels.", flag="--crop_size", rule=at_least(1))
    scales: list[float] = option(
        [0.5, 0.75, 1.0, 1.25, 1.5], "Factors, one of which scales an image before it is cropped.", rule=SCALES
    )


def require_masks(place: str, advice: str) -> None:
    """Makes sure that masks to train on are named.

    Args:
        advice: how they are made.

    Raises:
        UserError: they are not.
    """
    if not place:
        raise UserError(f"--masks is missing: the folder of the label masks to train on. {advice}")


@dataclass
class SeedsConfig:
    """The seeds that are refined: any method's, in either format."""

    folder: str = option("", "Folder of seed files, such as experiment/exp/dict.", flag="--seeds")
    thresholds: str = option(
        "", "A thresholds.json: the maps of each class are stretched such that all classes have the mean threshold; "
        "empty: they stay as they are.",
    )  # fmt: skip

    def check_folder(self) -> None:
        """Checks the folder, and that the file of thresholds is there.

        Raises:
            UserError: as `path`; or there is no such file.
        """
        self.path()
        self.check_thresholds()

    def check_thresholds(self) -> None:
        """Checks that the file of thresholds, if one is named, is there.

        Raises:
            UserError: it is not.
        """
        if self.thresholds and not Path(self.thresholds).is_file():
            raise UserError(
                f"no thresholds {self.thresholds} (from {Path.cwd()}); evaluation.py and vote.py write them with "
                "--tune_on LIST"
            )

    def path(self) -> Path:
        """The folder.

        Raises:
            UserError: none is named, or there is none.
        """
        if not self.folder:
            raise UserError("which seeds? Name their folder: --seeds experiment/NAME/dict")
        if not Path(self.folder).is_dir():
            raise UserError(f"no folder of seeds {self.folder} (from {Path.cwd()}); an inference with --dict writes it")
        return Path(self.folder)


@dataclass
class SeedCRFConfig(CRFConfig):
    """Dense CRF of seeds against a background of (1 - max over classes)^alpha."""

    alpha: float = option(
        6.0, "Background exponent: the larger, the less background.", flag="--alpha",
        rule=ABOVE_ZERO,
    )  # fmt: skip

    def settings(self) -> dict[str, object]:
        """The settings that the masks depend on: all but backend and device, whose labels are equal."""
        return {key: value for key, value in vars(self).items() if key not in ("backend", "device")}


@dataclass
class CRFMaskLists:
    """Image lists of the masks to make and to score."""

    image_list: str = option("train_aug", "Images to write masks for.", flag="--infer_list")
    eval_list: str = option("train", "Images whose masks are scored at the end, if they have true masks; empty: none.")


@dataclass
class CRFMasksConfig:
    """All sections of masks by CRF alone."""

    method: ClassVar[str] = "CRF alone"
    data: DataConfig = section(DataConfig)
    seeds: SeedsConfig = section(SeedsConfig)
    crf: SeedCRFConfig = section(SeedCRFConfig)
    infer: CRFMaskLists = section(CRFMaskLists)
    runtime: RuntimeConfig = section(RuntimeConfig)
