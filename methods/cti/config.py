"""CTI's configuration: one YAML drives training and inference."""

from dataclasses import dataclass
from typing import ClassVar

from common.data.layout import DataConfig
from common.nets.options import ViTConfig
from common.run.config import ABOVE_ZERO, at_least, numbers, option, pair, section
from common.run.errors import UserError
from common.run.options import RuntimeConfig
from common.run.papers import TIMM, PaperFlags
from common.score.options import EvalConfig
from common.seeds.options import ClassTokenInferConfig
from common.train.course import TrainConfig
from common.train.schedule import OptimConfig


@dataclass
class CTIViewConfig:
    """The two random views of a training image."""

    scale: list[float] = option(
        [0.3, 1.2], "Area range of view 1's crop, relative to the image.", flag="--scale", rule=pair(ABOVE_ZERO)
    )
    scale2: list[float] = option([0.3, 1.2], "Area range of view 2's crop.", flag="--scale2", rule=pair(ABOVE_ZERO))
    interpolation: str = option(
        "bicubic", "Resampling of the crops.", flag="--train-interpolation", choices=("bicubic", "bilinear")
    )
    auto_augment: str = option("rand-m9-mstd0.5-inc1", "timm's RandAugment of view 2; empty for none.")


@dataclass
class LossConfig:
    """The losses (paper symbols: docs/cti.md)."""

    weights: list[float] = option(
        [0.1, 1.0, 1.0], "W: weights of background, intra-image and cross-image loss; 0 switches one off.", flag="--W",
        rule=numbers(3, at_least(0)),
    )  # fmt: skip
    aux_after_epoch: int = option(
        -1, "The three auxiliary losses are on in epochs (from 0) after this one; -1: always.", rule=at_least(-1)
    )
    swap_idx: int = option(
        3, "s: class tokens are taken after this block and infused before the next.", rule=at_least(0)
    )
    n_layers: int = option(
        6, "Number of last layers whose class-to-patch attention the background loss sums.", rule=at_least(1)
    )
    memory_size: int = option(
        30,
        "Tokens kept for each class; the cross loss counts once the memory of every class is full.",
        rule=at_least(1),
    )
    detach_bg_cams: bool = option(
        False, "Whether the foreground side of the background loss detaches F (the reference does for COCO)."
    )
    share_prefix: bool = option(
        False,
        "Fast: infused passes start from pass 1's tokens instead of repeating blocks 0..s (with stochastic depth: "
        "shared draws).",
    )
    skip_idle_cross: bool = option(
        True, "Fast: skip the cross pass until the memory is full; before that its value would only be logged."
    )

    def check_depth(self, depth: int) -> None:
        """Checks the named layers.

        Raises:
            UserError: a network of ``depth`` blocks has no such layers.
        """
        if not 0 <= self.swap_idx < depth - 1 or self.n_layers > depth:
            raise UserError(
                f"loss.swap_idx={self.swap_idx} and loss.n_layers={self.n_layers} do not fit a network of {depth} "
                f"blocks: 0 <= swap_idx <= {depth - 2}, n_layers <= {depth}"
            )


@dataclass
class CTIConfig:
    """All sections of a CTI experiment."""

    method: ClassVar[str] = "CTI"
    paper: ClassVar[PaperFlags] = TIMM
    data: DataConfig = section(DataConfig)
    views: CTIViewConfig = section(CTIViewConfig)
    model: ViTConfig = section(ViTConfig)
    loss: LossConfig = section(LossConfig)
    optim: OptimConfig = section(OptimConfig)
    train: TrainConfig = section(TrainConfig)
    infer: ClassTokenInferConfig = section(ClassTokenInferConfig)
    eval: EvalConfig = section(EvalConfig, reference_range=[0.30, 0.44])
    runtime: RuntimeConfig = section(RuntimeConfig)

    def check(self) -> None:
        """Checks the losses against the network.

        Raises:
            UserError: as `LossConfig.check_depth`.
        """
        _, depth, _ = self.model.dimensions()
        self.loss.check_depth(depth)
