"""IRN's configuration: one YAML drives label maps, training and masks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from common.crf.options import CRFConfig
from common.data.layout import DataConfig
from common.masks.options import SeedsConfig
from common.nets.options import STAGES, ResNetConfig
from common.run.config import ABOVE_ZERO, FRACTION, Rule, at_least, option, pair, section
from common.run.errors import UserError
from common.run.folder import LABELS_DIR, RunFolder
from common.run.options import RuntimeConfig
from common.train.course import CourseConfig, Position
from common.train.schedule import poly

WEIGHTS_FILE = "{:03d}res50_irn.pth"
STRIDE = 4  # of the maps that the branches give
INPUTS = (LABELS_DIR, f"{LABELS_DIR}.json", "eval_ir_label.json")  # of the training, in the run folder


@dataclass
class LabelConfig:
    """The label maps that IRN is trained on, made from seeds; thresholds apply to CAMs in [0, 1]."""

    folder: str = option("", "Folder of the label maps; empty: ir_label/ of the run itself.", flag="--labels")
    fg_threshold: float = option(
        0.35, "A pixel is confident foreground where a class is above this.", flag="--conf_fg_thres",
        rule=at_least(0),
    )  # fmt: skip
    bg_threshold: float = option(
        0.15, "A pixel is confident background where no class is above this.", flag="--conf_bg_thres", rule=at_least(0)
    )
    certainty: float = option(
        0.7, "Probability of a pixel's own class at the start of the CRF; the other classes share the rest.",
        rule=Rule("between 0 and 1", lambda value: 0 < value < 1),
    )  # fmt: skip
    crf: CRFConfig = section(CRFConfig, bilateral_sxy=50.0, bilateral_srgb=5.0)

    def check(self) -> None:
        """Checks the order of the thresholds.

        Raises:
            UserError: a pixel could be confident foreground and background.
        """
        if self.bg_threshold > self.fg_threshold:
            raise UserError(
                f"labels.bg_threshold={self.bg_threshold} must not be above labels.fg_threshold={self.fg_threshold}"
            )

    def check_run(self, run: RunFolder) -> None:
        """Checks the folder of a training.

        Raises:
            UserError: it is missing.
        """
        if not self.place(run).is_dir():
            raise UserError(f"no label maps in {self.place(run)}. Make them with: python methods/irn/make_ir_label.py")

    def place(self, run: RunFolder) -> Path:
        """The folder of the label maps: the configured one, else the one in the run folder."""
        return Path(self.folder or run.labels)

    def settings(self) -> dict[str, Any]:
        """The settings that the label maps depend on besides the seeds: all but the CRF's backend and device."""
        of_crf = {key: value for key, value in vars(self.crf).items() if key not in ("backend", "device")}
        cuts = {key: value for key, value in vars(self).items() if key not in ("folder", "crf")}
        return {**cuts, "crf": of_crf}


@dataclass
class IRNModelConfig(ResNetConfig):
    """The network."""

    frozen: int = option(
        STAGES, "Number of the backbone's first stages that are not trained: all, as published; better 0 with random "
        "weights.",
        rule=Rule(f"from 0 to {STAGES}", lambda value: 0 <= value <= STAGES),
    )  # fmt: skip


@dataclass
class IRNViewConfig:
    """The random view of a training image."""

    crop_size: int = option(
        512, "Side of the crop in pixels.", flag="--irn_crop_size",
        rule=Rule(f"a multiple of {STRIDE}, at least {STRIDE}", lambda value: value > 0 and value % STRIDE == 0),
    )  # fmt: skip
    scale: list[float] = option(
        [0.5, 1.5], "Smallest and largest factor that an image is scaled by before it is cropped.",
        rule=pair(ABOVE_ZERO),
    )  # fmt: skip


@dataclass
class LossConfig:
    """The losses."""

    radius: int = option(
        10, "Two cells (4 pixels each) are compared if they are closer than this many cells.", rule=at_least(2)
    )


@dataclass
class IRNOptimConfig:
    """SGD with a poly schedule; nothing is scaled with the batch."""

    lr: float = option(
        0.1, "Learning rate of the boundary branch.", flag=("--irn_learning_rate", "--lr"), rule=at_least(0)
    )
    displacement_scale: float = option(
        10.0, "Learning rate of the displacement branch, relative to the boundary branch's.", rule=at_least(0)
    )
    momentum: float = option(
        1e-4, "SGD's momentum: the reference passes the weight decay in its place, and its results come from that.",
        rule=at_least(0),
    )  # fmt: skip
    weight_decay: float = option(1e-4, "Weight decay of all parameters.", flag="--irn_weight_decay", rule=at_least(0))
    power: float = option(0.9, "Exponent of the poly schedule.", rule=at_least(0))

    def rate(self, position: Position, total: int) -> float:
        """The boundary branch's learning rate in the next step of ``total``."""
        return self.lr * poly(position.total_steps, total, self.power)


@dataclass
class IRNCourseConfig(CourseConfig):
    """The course of the training, and the estimate of the mean displacement at its end."""

    epochs: int = option(60, "Epochs.", flag=("--irn_num_epoches", "--epochs"), rule=at_least(1))
    batch_size: int = option(
        64, "Global batch: images of one optimiser step over all processes and micro-batches.",
        flag=("--irn_batch_size", "--batch_size", "--batch-size"), rule=at_least(1),
    )  # fmt: skip
    displacement_list: str = option("train", "Images over which the mean displacement is estimated.")
    displacement_drop_last: bool = option(
        True, "Leave the last, incomplete batch out of that estimate, as the reference does."
    )


@dataclass
class WalkConfig:
    """The random walk on the grid of 1/4 of the image's size, and the mask made from it."""

    radius: int = option(5, "Two cells are neighbours if they are closer than this many cells.", rule=at_least(2))
    beta: float = option(10.0, "Exponent of the affinities.", flag="--beta", rule=at_least(0))
    log2_rounds: int = option(8, "log2 of the walk's length.", flag="--exp_times", rule=at_least(0))
    background: float = option(
        0.25, "Background's value; the classes' values are divided by the largest in the image.",
        flag="--sem_seg_bg_thres", rule=FRACTION,
    )  # fmt: skip


@dataclass
class IRNInferConfig:
    """Inference of the masks."""

    image_list: str = option("train_aug", "Images to write masks for.", flag="--infer_list")
    eval_list: str = option(
        "train", "Images whose masks are scored at the end, where they have true masks; empty: none."
    )
    batch_size: int = option(8, "Images of one size that go through the network together.", rule=at_least(1))
    canvas: int = option(
        512, "Side of the canvas that images are put on; as published, the side of the training crops.",
        rule=at_least(1),
    )  # fmt: skip
    num_workers: int = option(4, "Image-loader worker processes.", flag="--num_workers", rule=at_least(0))


@dataclass
class IRNConfig:
    """All sections of an IRN experiment."""

    method: ClassVar[str] = "IRN"
    data: DataConfig = section(DataConfig)
    seeds: SeedsConfig = section(SeedsConfig)
    labels: LabelConfig = section(LabelConfig)
    views: IRNViewConfig = section(IRNViewConfig)
    model: IRNModelConfig = section(IRNModelConfig)
    loss: LossConfig = section(LossConfig)
    optim: IRNOptimConfig = section(IRNOptimConfig)
    train: IRNCourseConfig = section(IRNCourseConfig, epochs=3, batch_size=32, print_freq=50, save_steps=100)
    walk: WalkConfig = section(WalkConfig)
    infer: IRNInferConfig = section(IRNInferConfig)
    runtime: RuntimeConfig = section(RuntimeConfig)

    def check(self) -> None:
        """Checks what no single key can.

        Raises:
            UserError: the crop has no room for pairs of this radius.
        """
        if self.views.crop_size // STRIDE <= 2 * (self.loss.radius - 1):
            raise UserError(
                f"views.crop_size={self.views.crop_size} has {self.views.crop_size // STRIDE} cells a side, too few "
                f"for pairs of loss.radius={self.loss.radius}: more than {2 * (self.loss.radius - 1)} are needed"
            )
