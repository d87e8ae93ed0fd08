"""DeepLab's configuration: one YAML drives training and test."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from common.crf.options import CRFConfig
from common.data.layout import DataConfig
from common.masks.options import MaskViewConfig, SegmentConfig, require_masks
from common.pipeline.builders import mask_advice
from common.run.config import BELOW_ONE, Rule, at_least, numbers, option, section, some
from common.run.errors import UserError
from common.run.options import RuntimeConfig
from common.run.papers import Instead, PaperFlags
from common.score.options import EvalConfig
from common.train.course import Position, StepCourseConfig
from common.train.schedule import poly

WEIGHTS_FILE = "checkpoint_{}.pth"
FINAL_FILE = "checkpoint_final.pth"
_CONFIG = Instead(
    "--exp deeplab_voc", reason="--config-path names a YAML of the paper's own code, whose keys are others",
    is_answered=True,
)  # fmt: skip
_WEIGHTS = Instead("--load_pretrained {}", names_run=True)
PAPER: PaperFlags = {  # arguments of the paper's main.py
    "train": Instead("--masks FOLDER", takes=0), "test": Instead(takes=0, reason="the script tells the work"),
    "crf": Instead("--crf", takes=0), "--config-path": _CONFIG, "-c": _CONFIG, "--model-path": _WEIGHTS, "-m": _WEIGHTS,
    "--cuda": Instead("runtime.device=cuda", takes=0), "--cpu": Instead("runtime.device=cpu", takes=0),
    "--n-jobs": Instead("infer.num_workers={}"), "-j": Instead("infer.num_workers={}"),
}  # fmt: skip


def require_initial(source: str) -> None:
    """Makes sure that a file of first weights is there.

    Raises:
        UserError: it is not; the message names other weights.
    """
    if not Path(source).is_file():
        raise UserError(
            f"no initial weights {source} (from {Path.cwd()}); docs/deeplab.md says which there are. Others: "
            "model.pretrained=torchvision views.input=imagenet; random ones on purpose: model.pretrained=none"
        )


@dataclass
class DeepLabModelConfig:
    """The network and its first weights; the defaults are DeepLabV2-ResNet101-MSC."""

    pretrained: str = option(
        "pretrained/deeplabv1_resnet101-coco.pth",
        "First weights: a file (Caffe's ResNet, a DeepLab checkpoint, torchvision's or timm's ResNet), torchvision "
        "(ResNet-101 of ImageNet, from pretrained/ or its hub), or none (random). views.input must suit them.",
        flag="--init",
    )
    width: int = option(64, "Channels of the stem; the stages have 4, 8, 16 and 32 times as many.", rule=at_least(1))
    blocks: list[int] = option([3, 4, 23, 3], "Blocks of the four stages.", rule=numbers(4, at_least(1)))
    stride_in: str = option(
        "reduce", "Kernel of layer3's first block with the stride: reduce (1x1, Caffe) or conv3x3 (torchvision).",
        choices=("reduce", "conv3x3"),
    )  # fmt: skip
    atrous_rates: list[int] = option([6, 12, 18, 24], "Dilations of the ASPP's kernels.", rule=some(at_least(1)))
    scales: list[float] = option(
        [0.5, 0.75], "Scales whose logits are joined with the image's by their maximum; empty: the image alone.",
        rule=Rule("numbers above 0", lambda scales: all(scale > 0 for scale in scales)),
    )  # fmt: skip
    channels_last: bool = option(False, "Channels-last memory format, for GPUs with bf16 or fp16.")

    def check_start(self, is_resumed: bool) -> None:
        """Checks the weights of a training.

        Raises:
            UserError: as `require_initial`.
        """
        if not is_resumed and self.pretrained not in ("none", "torchvision"):
            require_initial(self.pretrained)


@dataclass
class DeepLabOptimConfig:
    """SGD with a poly schedule; nothing is scaled with the batch."""

    lr: float = option(2.5e-4, "Learning rate of the backbone's kernels.", flag="--lr", rule=at_least(0))
    head_scale: float = option(
        10.0, "Learning rate of the ASPP's kernels, relative to the backbone's.", rule=at_least(0)
    )
    head_bias_scale: float = option(
        20.0, "Learning rate of the ASPP's biases, relative to the backbone's.", rule=at_least(0)
    )
    momentum: float = option(0.9, "SGD's momentum.", rule=BELOW_ONE)
    weight_decay: float = option(
        5e-4, "Weight decay of kernels; biases have none.", flag="--wt_decay", rule=at_least(0)
    )
    power: float = option(0.9, "Exponent of the poly schedule.", flag="--power", rule=at_least(0))
    lr_decay: int = option(10, "Steps between two changes of the learning rate.", rule=at_least(1))

    def rate(self, position: Position, total: int) -> float:
        """The backbone's learning rate in the next step of ``total``; after the last one 0."""
        return self.lr * poly(position.total_steps // self.lr_decay * self.lr_decay, total, self.power)


@dataclass
class DeepLabCourseConfig(StepCourseConfig):
    """The course of the training; validation is on one scale."""

    masks: str = option(
        "",
        "Masks to train on: a folder of <id>.png, such as experiment/irn/masks, or a pattern with {id} in it.",
        flag="--masks",
    )
    val_batch: int = option(4, "Images of one size per forward pass in validation.", rule=at_least(1))

    def check_start(self, is_resumed: bool) -> None:
        """Checks batch and masks.

        Raises:
            UserError: as `CourseConfig.check_start` and `require_masks`.
        """
        super().check_start(is_resumed)
        require_masks(self.masks, mask_advice(self.image_list))


@dataclass
class DeepLabInferConfig(SegmentConfig):
    """Inference of masks: views besides the network's own scales, and the dense CRF."""

    crf: CRFConfig = section(
        CRFConfig, gaussian_sxy=1.0, gaussian_compat=3.0, bilateral_sxy=67.0, bilateral_srgb=3.0, bilateral_compat=4.0
    )
    clean_image: bool = option(
        False, "Give the CRF the image itself; the published numbers are with the mean-subtracted image, cast to 8 "
        "bits so that dark values wrap around.",
    )  # fmt: skip


@dataclass
class DeepLabConfig:
    """All sections of a DeepLab experiment."""

    method: ClassVar[str] = "DeepLab"
    paper: ClassVar[PaperFlags] = PAPER
    data: DataConfig = section(DataConfig)
    views: MaskViewConfig = section(MaskViewConfig)
    model: DeepLabModelConfig = section(DeepLabModelConfig)
    optim: DeepLabOptimConfig = section(DeepLabOptimConfig)
    train: DeepLabCourseConfig = section(
        DeepLabCourseConfig, epochs=1_000_000, max_steps=20_000, batch_size=10, accumulation=2, print_freq=100,
        save_steps=1000,
    )  # fmt: skip
    infer: DeepLabInferConfig = section(DeepLabInferConfig, scales=[1.0], flip="none")
    eval: EvalConfig = section(EvalConfig)
    runtime: RuntimeConfig = section(RuntimeConfig)
