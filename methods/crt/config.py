"""CRT's configuration on segmentation data: one YAML drives training, seeds and the stages after them."""

from dataclasses import dataclass
from pathlib import Path

from common.data.dataset import DataConfig
from common.pipeline.table import StageConfig
from common.run.config import at_least, option, section
from common.run.device import RuntimeConfig
from common.run.errors import UserError
from common.run.folder import SEEDS_DIR
from common.score.evaluate import EvalConfig
from common.train.course import Position, TrainConfig
from common.train.schedule import poly
from methods.crt.cams import CRTInferConfig
from methods.crt.losses import LossConfig
from methods.crt.model import CRTModelConfig
from methods.crt.views import CRTViewConfig


@dataclass
class CRTOptimConfig:
    """SGD with a poly schedule; nothing is scaled with the batch."""

    lr: float = option(0.1, "Learning rate of both backbones.", flag=("--cam_learning_rate", "--lr"))
    head_scale: float = option(10.0, "Learning rate of both classifiers, relative to the backbones'.")
    momentum: float = option(
        1e-4, "SGD's momentum: the reference passes the weight decay in its place, and its results come from that.",
        rule=at_least(0),
    )  # fmt: skip
    weight_decay: float = option(
        1e-4, "Weight decay of all trained parameters, norms, biases and tokens included.", flag="--cam_weight_decay"
    )
    power: float = option(0.9, "Exponent of the poly schedule.")

    def rate(self, position: Position, total: int) -> float:
        """The backbones' learning rate in the next step of ``total``; after the end that of the last step."""
        return self.lr * poly(min(position.total_steps, total - 1), total, self.power)


@dataclass
class CRTCourseConfig(TrainConfig):
    """The course of the training, with the flags of the reference's command."""

    epochs: int = option(10, "Epochs.", flag=("--cam_num_epoches", "--epochs"), rule=at_least(1))
    batch_size: int = option(
        16, "Global batch: images of one optimiser step over all processes and micro-batches.",
        flag=("--cam_batch_size", "--batch_size", "--batch-size"), rule=at_least(1),
    )  # fmt: skip
    validate_from: int = option(-1, "Score seeds after every epoch from this one (from 0); -1: never.")


@dataclass
class CRTEvalConfig(EvalConfig):
    """At which background thresholds seeds are scored."""

    fixed_threshold: float = option(
        0.15, "The reference's only threshold, whose score is reported beside the best.", flag="--cam_eval_thres"
    )


@dataclass
class CRTConfig:
    """All sections of a CRT experiment; ``irn`` are the scripts that `run_sample.py` refines the seeds with."""

    data: DataConfig = section(DataConfig)
    views: CRTViewConfig = section(CRTViewConfig)
    model: CRTModelConfig = section(CRTModelConfig)
    loss: LossConfig = section(LossConfig)
    optim: CRTOptimConfig = section(CRTOptimConfig)
    train: CRTCourseConfig = section(CRTCourseConfig, print_freq=100)
    infer: CRTInferConfig = section(CRTInferConfig)
    irn: StageConfig = section(StageConfig, exp="irn_crt")
    eval: CRTEvalConfig = section(CRTEvalConfig)
    runtime: RuntimeConfig = section(RuntimeConfig)

    def check(self) -> None:
        """Checks what no single key can.

        Raises:
            UserError: the crop cannot be cut into tiles.
        """
        tile = self.model.deit.img_size
        size = self.views.crop_size
        if tile % 2 or size < tile or size % (tile // 2):
            raise UserError(
                f"views.crop_size={size} cannot be cut into tiles of model.deit.img_size={tile} that overlap by half: "
                f"it must be at least that, and a multiple of {tile / 2:g}"
            )


def strided_path(seeds: Path) -> Path:
    """The folder of the strided maps beside one of seeds."""
    return seeds.parent / ("cam" if seeds.name == SEEDS_DIR else f"{seeds.name}_cam")
