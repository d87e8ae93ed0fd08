"""PCSS's configuration: one YAML drives training and inference."""

from dataclasses import dataclass
from typing import ClassVar

from common.data.layout import DataConfig
from common.data.options import ViewConfig
from common.nets.options import ViTConfig
from common.run.config import FRACTION, at_least, numbers, option, section
from common.run.errors import UserError
from common.run.options import RuntimeConfig
from common.run.papers import TIMM, PaperFlags
from common.score.options import EvalConfig
from common.seeds.options import ClassTokenInferConfig
from common.train.course import TrainConfig
from common.train.schedule import OptimConfig


@dataclass
class LossConfig:
    """The losses (paper symbols: docs/pcss.md)."""

    weights: list[float] = option(
        [2.0, 2.0],
        "W: weights of the CAM terms of shortcut suppression and of magnitude mixing; 0 switches a pass off.",
        flag="--W", rule=numbers(2, at_least(0)),
    )  # fmt: skip
    mpc_idx: int = option(
        7,
        "Magnitudes are taken after this block and mixed in before the next.",
        flag=("--mpc_idx", "--mpc-idx"),
        rule=at_least(0),
    )
    mpc_org_ratio: float = option(
        0.3, "Share of an image's own magnitude in the mix.", flag=("--mpc_org_ratio", "--mpc-org-ratio"), rule=FRACTION
    )
    mpc_cam_start_epoch: int = option(
        0, "Epoch (from 0) from which the mixed pass's CAM is compared.",
        flag=("--mpc_cam_start_epo", "--mpc-cam-start-epo"), rule=at_least(0),
    )  # fmt: skip
    share_prefix: bool = option(
        False,
        "Fast: the mixed pass starts from pass 1's tokens after block mpc_idx (with stochastic depth: shared draws).",
    )

    no_fixed_points: bool = option(
        False, "Draw partners so that no image of a micro-batch is its own; the reference draws any permutation."
    )

    def check_depth(self, depth: int) -> None:
        """Checks the named block.

        Raises:
            UserError: a network of ``depth`` blocks has no such block.
        """
        if not 0 <= self.mpc_idx < depth - 1:
            raise UserError(f"loss.mpc_idx={self.mpc_idx} does not fit a network of {depth} blocks: 0 to {depth - 2}")


@dataclass
class FIMConfig:
    """The measurement of frequency importance."""

    start_epoch: int = option(
        2, "The first round follows this epoch (from 0); suppression begins with the next epoch.",
        flag=("--fim_start_epo", "--fim-start-epo"), rule=at_least(0),
    )  # fmt: skip
    interval: int = option(
        3, "Epochs from one round to the next.", flag=("--fim_interval_epo", "--fim-interval-epo"), rule=at_least(1)
    )
    images_per_class: int = option(
        100, "Images of each class that a round measures.", flag=("--fim_ipc", "--fim-ipc"), rule=at_least(1)
    )
    block: int = option(16, "Side of the removed blocks of the spectrum, in frequencies.", rule=at_least(1))
    corrected: bool = option(
        False, "Remove a block together with its conjugate frequencies; the reference's mirror block is off by one."
    )
    batch_size: int = option(64, "Filtered images per forward pass and process.", rule=at_least(1))


def check_blocks(size: int, block: int) -> None:
    """Checks that an image divides into blocks.

    Raises:
        UserError: it does not.
    """
    if size % block:
        raise UserError(f"model.img_size={size} is no multiple of fim.block={block}")


@dataclass
class PCSSConfig:
    """All sections of a PCSS experiment."""

    method: ClassVar[str] = "PCSS"
    paper: ClassVar[PaperFlags] = TIMM
    data: DataConfig = section(DataConfig)
    views: ViewConfig = section(ViewConfig)
    model: ViTConfig = section(ViTConfig)
    loss: LossConfig = section(LossConfig)
    fim: FIMConfig = section(FIMConfig)
    optim: OptimConfig = section(OptimConfig)
    train: TrainConfig = section(TrainConfig)
    infer: ClassTokenInferConfig = section(ClassTokenInferConfig)
    eval: EvalConfig = section(EvalConfig, reference_range=[0.30, 0.59], early_stop=True)
    runtime: RuntimeConfig = section(RuntimeConfig)

    def check(self) -> None:
        """Checks losses and frequency importance against the network.

        Raises:
            UserError: as `LossConfig.check_depth` and `check_blocks`.
        """
        _, depth, _ = self.model.dimensions()
        self.loss.check_depth(depth)
        if self.loss.weights[0] > 0:
            check_blocks(self.model.img_size, self.fim.block)
