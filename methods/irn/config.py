"""IRN's configuration: one YAML drives labels, training and masks."""

from dataclasses import dataclass

from common.data.dataset import DataConfig
from common.masks.from_seeds import SeedsConfig
from common.run.config import at_least, option, section
from common.run.device import RuntimeConfig
from common.run.errors import UserError
from common.run.folder import LABELS_DIR
from common.train.course import CourseConfig, Position
from common.train.schedule import poly
from methods.irn.labels import LabelConfig
from methods.irn.losses import LossConfig
from methods.irn.model import STRIDE, IRNModelConfig
from methods.irn.views import IRNViewConfig
from methods.irn.walk import WalkConfig

WEIGHTS_FILE = "{:03d}res50_irn.pth"
INPUTS = (LABELS_DIR, f"{LABELS_DIR}.json", "eval_ir_label.json")  # of the training, in the run folder


@dataclass
class IRNOptimConfig:
    """SGD under a poly schedule; nothing is scaled with the batch."""

    lr: float = option(0.1, "Learning rate of the boundary branch.", flag=("--irn_learning_rate", "--lr"))
    displacement_scale: float = option(10.0, "Learning rate of the displacement branch, relative to the other's.")
    momentum: float = option(
        1e-4, "SGD's momentum: the reference passes the weight decay in its place, and its results come from that.",
        rule=at_least(0),
    )  # fmt: skip
    weight_decay: float = option(1e-4, "Weight decay of all parameters.", flag="--irn_weight_decay")
    power: float = option(0.9, "Exponent of the poly schedule.")

    def rate(self, position: Position, total: int) -> float:
        """The boundary branch's learning rate in the next step of ``total``."""
        return self.lr * poly(position.total_steps, total, self.power)


@dataclass
class IRNCourseConfig(CourseConfig):
    """The course of the training, and the estimate of the mean displacement at its end."""

    displacement_list: str = option("train", "Images over which the mean displacement is estimated.")
    displacement_drop_last: bool = option(
        True, "Leave the last, incomplete batch out of that estimate, as the reference does."
    )


@dataclass
class MaskConfig:
    """Which masks are made and scored, and how images go through the network."""

    image_list: str = option("train_aug", "Images to make masks for.", flag="--infer_list")
    eval_list: str = option(
        "train", "Images whose masks are scored at the end, where there are true ones for them; empty: none."
    )
    batch_size: int = option(8, "Images of one size that go through the network together.", rule=at_least(1))
    canvas: int = option(
        512, "Side of the canvas that images are put on: that of the training crops.", rule=at_least(1)
    )


@dataclass
class IRNConfig:
    """All sections of an IRN experiment."""

    data: DataConfig = section(DataConfig)
    seeds: SeedsConfig = section(SeedsConfig)
    labels: LabelConfig = section(LabelConfig)
    views: IRNViewConfig = section(IRNViewConfig)
    model: IRNModelConfig = section(IRNModelConfig)
    loss: LossConfig = section(LossConfig)
    optim: IRNOptimConfig = section(IRNOptimConfig)
    train: IRNCourseConfig = section(IRNCourseConfig, epochs=3, batch_size=32, print_freq=50, save_steps=100)
    walk: WalkConfig = section(WalkConfig)
    infer: MaskConfig = section(MaskConfig)
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
