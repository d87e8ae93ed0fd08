"""ToCo's configuration: one YAML drives training and inference."""

from dataclasses import dataclass

from common.data.dataset import DataConfig
from common.run.config import at_least, numbers, option, section
from common.run.device import RuntimeConfig
from common.score.evaluate import EvalConfig
from common.train.course import Position, StepCourseConfig
from common.train.schedule import poly
from methods.toco.cams import ToCoInferConfig
from methods.toco.energy import EnergyConfig
from methods.toco.labels import LabelConfig
from methods.toco.model import ToCoModelConfig
from methods.toco.step import LossConfig
from methods.toco.views import ToCoViewConfig

WEIGHTS_FILE = "model_iter_{}.pth"


@dataclass
class ToCoOptimConfig:
    """AdamW with a poly schedule; nothing is scaled with the batch."""

    lr: float = option(6e-5, "Learning rate of the encoder.", flag="--lr")
    head_scale: float = option(10.0, "Learning rate of all heads, relative to the encoder's.")
    warmup_steps: int = option(
        1500, "Steps of linear warm-up; the poly schedule is not shifted by it.", rule=at_least(0)
    )
    warmup_ratio: float = option(1e-6, "Where the warm-up starts, relative to the learning rate.", flag="--warmup_lr")
    power: float = option(0.9, "Exponent of the poly schedule.", flag="--power")
    weight_decay: float = option(1e-2, "Weight decay of all parameters, biases and norms included.", flag="--wt_decay")
    betas: list[float] = option([0.9, 0.999], "AdamW's betas.", rule=numbers(2))
    eps: float = option(1e-8, "AdamW's epsilon.")

    def rate(self, position: Position, total: int) -> float:
        """The encoder's learning rate in the next step of ``total``: linear warm-up, then poly."""
        step = position.total_steps
        if step < self.warmup_steps:
            return self.lr * (1 - (1 - step / self.warmup_steps) * (1 - self.warmup_ratio))
        return self.lr * poly(step, total, self.power)


@dataclass
class ToCoCourseConfig(StepCourseConfig):
    """The course of the training."""

    val_limit: int = option(0, "Validate on the first so many images of the list; 0: all.", rule=at_least(0))
    val_size: int = option(448, "Side to which images are brought for validation.", rule=at_least(1))
    val_batch: int = option(8, "Images that validation gives to the network at a time.", rule=at_least(1))


@dataclass
class ToCoConfig:
    """All sections of a ToCo experiment."""

    data: DataConfig = section(DataConfig)
    views: ToCoViewConfig = section(ToCoViewConfig)
    model: ToCoModelConfig = section(ToCoModelConfig, arch="deit_base_patch16_224", drop_path=0.0)
    loss: LossConfig = section(LossConfig)
    labels: LabelConfig = section(LabelConfig)
    energy: EnergyConfig = section(EnergyConfig)
    optim: ToCoOptimConfig = section(ToCoOptimConfig)
    train: ToCoCourseConfig = section(
        ToCoCourseConfig, epochs=1_000_000, max_steps=20_000, batch_size=4, print_freq=200, save_steps=1000,
        eval_steps=2000, keep_steps=2000,
    )  # fmt: skip
    infer: ToCoInferConfig = section(ToCoInferConfig)
    eval: EvalConfig = section(EvalConfig, fixed_threshold=0.5)
    runtime: RuntimeConfig = section(RuntimeConfig)
