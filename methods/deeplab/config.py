"""DeepLab's configuration: one YAML drives training and test."""

from dataclasses import dataclass

from common.crf.dense import CRFConfig
from common.data.dataset import DataConfig
from common.masks.network import SegmentConfig
from common.run.config import at_least, option, section
from common.run.device import RuntimeConfig
from common.score.evaluate import EvalConfig
from common.train.course import Position, StepCourseConfig
from common.train.schedule import poly
from methods.deeplab.model import DeepLabModelConfig
from methods.deeplab.views import DeepLabViewConfig

WEIGHTS_FILE = "checkpoint_{}.pth"
FINAL_FILE = "checkpoint_final.pth"


@dataclass
class DeepLabOptimConfig:
    """SGD with a poly schedule; nothing is scaled with the batch."""

    lr: float = option(2.5e-4, "Learning rate of the backbone's kernels.", flag="--lr")
    head_scale: float = option(10.0, "Learning rate of the ASPP's kernels, relative to the backbone's.")
    head_bias_scale: float = option(20.0, "Learning rate of the ASPP's biases, relative to the backbone's.")
    momentum: float = option(0.9, "Momentum.")
    weight_decay: float = option(5e-4, "Weight decay of kernels; biases have none.", flag="--wt_decay")
    power: float = option(0.9, "Exponent of the poly schedule.", flag="--power")
    lr_decay: int = option(10, "Steps for which the learning rate stays.", rule=at_least(1))

    def rate(self, position: Position, total: int) -> float:
        """The backbone's learning rate in the next step of ``total``; after the last one 0."""
        return self.lr * poly(position.total_steps // self.lr_decay * self.lr_decay, total, self.power)


@dataclass
class DeepLabCourseConfig(StepCourseConfig):
    """The course of the training; validation is on one scale."""

    masks: str = option(
        "",
        "Label masks to train on: a folder of <id>.png, such as experiment/irn/masks, or a pattern with {id} in it.",
        flag="--masks",
    )
    val_batch: int = option(4, "Images of one size that validation gives to the network at a time.", rule=at_least(1))


@dataclass
class DeepLabTestConfig(SegmentConfig):
    """Test: the views' logits beyond the network's own scales, and the dense CRF."""

    crf: CRFConfig = section(
        CRFConfig, gaussian_sxy=1.0, gaussian_compat=3.0, bilateral_sxy=67.0, bilateral_srgb=3.0, bilateral_compat=4.0
    )
    clean_image: bool = option(
        False, "Show the image itself to the CRF; the published numbers are with the mean-subtracted one, cast to 8 "
        "bits so that dark values wrap around.",
    )  # fmt: skip


@dataclass
class DeepLabConfig:
    """All sections of a DeepLab experiment."""

    data: DataConfig = section(DataConfig)
    views: DeepLabViewConfig = section(DeepLabViewConfig)
    model: DeepLabModelConfig = section(DeepLabModelConfig)
    optim: DeepLabOptimConfig = section(DeepLabOptimConfig)
    train: DeepLabCourseConfig = section(
        DeepLabCourseConfig, epochs=1_000_000, max_steps=20_000, batch_size=10, accumulation=2, print_freq=100,
        save_steps=1000,
    )  # fmt: skip
    infer: DeepLabTestConfig = section(DeepLabTestConfig, scales=[1.0], flip="none")
    eval: EvalConfig = section(EvalConfig)
    runtime: RuntimeConfig = section(RuntimeConfig)
