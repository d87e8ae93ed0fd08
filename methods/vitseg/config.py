"""The ViT segmenter's configuration: one YAML drives training and test."""

from dataclasses import dataclass
from typing import Any, ClassVar

from common.crf.options import CRFConfig
from common.data.layout import DataConfig
from common.masks.options import MaskViewConfig, SegmentConfig, require_masks
from common.nets.options import ViTConfig
from common.pipeline.builders import mask_advice
from common.run.config import ABOVE_ZERO, BELOW_ONE, FRACTION, at_least, numbers, option, section
from common.run.errors import UserError
from common.run.options import RuntimeConfig
from common.score.options import EvalConfig
from common.train.course import Position, StepCourseConfig
from common.train.schedule import LAYER_DECAY, poly

WEIGHTS_FILE = "checkpoint_{}.pth"
FINAL_FILE = "checkpoint_final.pth"


@dataclass
class VitSegViewConfig(MaskViewConfig):
    """The random crop of a training image."""

    input: str = option(
        "imagenet", "Form of the inputs; a backbone makes its own normalisation of it.", choices=("imagenet",)
    )
    crop_size: int = option(0, "Side of the crop, in pixels; 0: model.img_size.", flag="--crop_size", rule=at_least(0))


@dataclass
class VitSegModelConfig(ViTConfig):
    """The backbone, and the decoder on its patch tokens."""

    decoder: str = option(
        "mask", "Decoder: linear (a layer on every patch) or mask (Segmenter's mask tokens, one per label).",
        choices=("linear", "mask"),
    )  # fmt: skip
    decoder_depth: int = option(2, "Blocks of the mask decoder.", rule=at_least(1))


@dataclass
class VitSegOptimConfig:
    """AdamW with a linear warm-up and a poly schedule; nothing is scaled with the batch."""

    lr: float = option(6e-5, "Learning rate of the backbone's last layer.", flag="--lr", rule=at_least(0))
    head_scale: float = option(10.0, "Learning rate of the decoder, relative to the backbone's.", rule=ABOVE_ZERO)
    layer_decay: float = option(
        1.0, "Factor of the learning rate from each layer of the backbone to the one before it.", rule=LAYER_DECAY
    )
    weight_decay: float = option(0.01, "Weight decay of matrices and kernels.", flag="--wt_decay", rule=at_least(0))
    warmup_steps: int = option(1500, "Steps of linear warm-up.", rule=at_least(0))
    power: float = option(0.9, "Exponent of the poly schedule.", flag="--power", rule=at_least(0))
    betas: list[float] = option([0.9, 0.999], "AdamW's betas.", rule=numbers(2, BELOW_ONE))
    eps: float = option(1e-8, "AdamW's epsilon.", rule=at_least(0))

    def rate(self, position: Position, total: int) -> float:
        """The backbone's learning rate in the next step of ``total``: linear warm-up, then poly over the whole run."""
        step = position.total_steps
        warm = min((step + 1) / (self.warmup_steps + 1), 1.0)
        return self.lr * warm * poly(min(step, total), total, self.power)


@dataclass
class VitSegCourseConfig(StepCourseConfig):
    """The course of the training, and the masks; validation is on one scale."""

    masks: str = option(
        "",
        "Masks to train on: a folder of <id>.png, such as experiment/irn/masks, or a pattern with {id} in it.",
        flag="--masks",
    )
    ignore: str = option(
        "none", "Pixels that are left out besides label 255: none, or disputed (where other_masks has another label).",
        choices=("none", "disputed"),
    )  # fmt: skip
    other_masks: str = option(
        "",
        "A second opinion for ignore=disputed: masks of the same images, in the form of masks.",
        flag="--other_masks",
    )
    val_batch: int = option(4, "Images of one size per forward pass in validation.", rule=at_least(1))

    def check(self) -> None:
        """Checks the batch, and the second opinion.

        Raises:
            UserError: as `CourseConfig.check`; or one of ``ignore`` and ``other_masks`` is set alone.
        """
        super().check()
        if (self.ignore == "disputed") != bool(self.other_masks):
            raise UserError(
                f"train.ignore={self.ignore} and train.other_masks={self.other_masks or '(empty)'} do not go together: "
                "disputed pixels are found with a second folder of masks (--other_masks FOLDER train.ignore=disputed)"
            )

    def check_start(self, is_resumed: bool) -> None:
        """Checks batch and masks.

        Raises:
            UserError: as `CourseConfig.check_start` and `require_masks`.
        """
        super().check_start(is_resumed)
        require_masks(self.masks, mask_advice(self.image_list))


@dataclass
class TeacherConfig:
    """A teacher, the moving average of the network, whose confident labels replace those of the masks."""

    from_epoch: int = option(
        -1, "First epoch (from 0) in which it replaces labels; -1: there is no teacher.", rule=at_least(-1)
    )
    momentum: float = option(0.999, "Share of itself that the teacher keeps in a step.", rule=BELOW_ONE)
    confidence: float = option(0.9, "Probability from which the teacher's label counts.", rule=FRACTION)


@dataclass
class VitSegInferConfig(SegmentConfig):
    """Inference of masks: flips and scales, whole images or sliding windows, and the dense CRF."""

    window: int = option(
        0, "Side of the windows that a larger image is cut into, in pixels; 0: the whole image.", rule=at_least(0)
    )
    stride: int = option(0, "Distance of two windows, in pixels; 0: two thirds of the window.", rule=at_least(0))

    def settings(self) -> dict[str, Any]:
        """As `SegmentConfig.settings`."""
        return {**super().settings(), "window": self.window, "stride": self.stride}


@dataclass
class VitSegConfig:
    """All sections of an experiment with the ViT segmenter."""

    method: ClassVar[str] = "ViT segmenter"
    data: DataConfig = section(DataConfig)
    views: VitSegViewConfig = section(VitSegViewConfig)
    model: VitSegModelConfig = section(VitSegModelConfig)
    optim: VitSegOptimConfig = section(VitSegOptimConfig)
    teacher: TeacherConfig = section(TeacherConfig)
    train: VitSegCourseConfig = section(
        VitSegCourseConfig, epochs=1_000_000, max_steps=20_000, batch_size=16, print_freq=100, save_steps=1000,
    )  # fmt: skip
    infer: VitSegInferConfig = section(
        VitSegInferConfig, scales=[1.0, 0.75, 1.25], flip="sum", merge="sum",
        crf=CRFConfig(
            gaussian_sxy=1.0, gaussian_compat=3.0, bilateral_sxy=67.0, bilateral_srgb=3.0, bilateral_compat=4.0
        ),
    )  # fmt: skip
    eval: EvalConfig = section(EvalConfig)
    runtime: RuntimeConfig = section(RuntimeConfig)

    def check(self) -> None:
        """Lets the crop be the backbone's image where it is left out (0)."""
        self.views.crop_size = self.views.crop_size or self.model.img_size
