"""CTI's configuration: one YAML drives training and inference."""

from dataclasses import dataclass

from common.data.dataset import DataConfig
from common.nets.vit import ViTConfig
from common.run.config import numbers, option, section
from common.run.device import RuntimeConfig
from common.score.evaluate import EvalConfig
from common.seeds.infer import ClassTokenInferConfig
from common.train.course import TrainConfig
from common.train.schedule import OptimConfig
from methods.cti.losses import LossConfig


@dataclass
class ViewsConfig:
    """The two random views of a training image."""

    scale: list[float] = option(
        [0.3, 1.2], "Area range of view 1's crop, relative to the image.", flag="--scale", rule=numbers(2)
    )
    scale2: list[float] = option([0.3, 1.2], "Area range of view 2's crop.", flag="--scale2", rule=numbers(2))
    interpolation: str = option(
        "bicubic", "Resampling of the crops.", flag="--train-interpolation", choices=("bicubic", "bilinear")
    )
    auto_augment: str = option("rand-m9-mstd0.5-inc1", "timm's RandAugment of view 2; empty for none.")


@dataclass
class CTIConfig:
    """All sections of a CTI experiment."""

    data: DataConfig = section(DataConfig)
    views: ViewsConfig = section(ViewsConfig)
    model: ViTConfig = section(ViTConfig)
    loss: LossConfig = section(LossConfig)
    optim: OptimConfig = section(OptimConfig)
    train: TrainConfig = section(TrainConfig)
    infer: ClassTokenInferConfig = section(ClassTokenInferConfig)
    eval: EvalConfig = section(EvalConfig, reference_range=[0.30, 0.44])
    runtime: RuntimeConfig = section(RuntimeConfig)
