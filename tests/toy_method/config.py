"""The toy's configuration: one YAML drives training and inference."""

from dataclasses import dataclass
from typing import ClassVar

from common.data.layout import DataConfig
from common.data.options import ViewConfig
from common.nets.options import ViTConfig
from common.run.config import at_least, option, section
from common.run.errors import UserError
from common.run.options import RuntimeConfig
from common.score.options import EvalConfig
from common.seeds.options import InferConfig
from common.train.course import TrainConfig
from common.train.schedule import OptimConfig


@dataclass
class LossConfig:
    """The losses."""

    peak: float = option(0.5, "Weight of the peak loss; 0 switches it off.", flag="--peak", rule=at_least(0))
    peak_from: int = option(1, "Epoch (from 0) from which the peak loss counts.", rule=at_least(0))


@dataclass
class ToyConfig:
    """All sections of a toy experiment."""

    method: ClassVar[str] = "Toy"
    data: DataConfig = section(DataConfig)
    views: ViewConfig = section(ViewConfig, auto_augment="")
    model: ViTConfig = section(ViTConfig)
    loss: LossConfig = section(LossConfig)
    optim: OptimConfig = section(OptimConfig)
    train: TrainConfig = section(TrainConfig)
    infer: InferConfig = section(InferConfig)
    eval: EvalConfig = section(EvalConfig)
    runtime: RuntimeConfig = section(RuntimeConfig)

    def check(self) -> None:
        """Checks the losses against the course of the training.

        Raises:
            UserError: the peak loss would never count.
        """
        if self.loss.peak > 0 and self.loss.peak_from >= self.train.epochs:
            raise UserError(f"loss.peak_from={self.loss.peak_from} is no epoch of a run of {self.train.epochs} epochs")
