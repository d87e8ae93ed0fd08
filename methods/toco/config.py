"""ToCo's configuration: one YAML drives training and inference."""

from dataclasses import dataclass

from common.config import at_least, option, section
from common.data.dataset import DataConfig
from common.evaluate import EvalConfig
from common.runtime import RuntimeConfig
from common.training import StepCourseConfig
from methods.toco.cams import ToCoInferConfig
from methods.toco.energy import EnergyConfig
from methods.toco.labels import LabelConfig
from methods.toco.model import ToCoModelConfig
from methods.toco.optim import ToCoOptimConfig
from methods.toco.step import LossConfig
from methods.toco.views import ToCoViewConfig

WEIGHTS_FILE = "model_iter_{}.pth"


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
