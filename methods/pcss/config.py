"""PCSS's configuration: one YAML drives training and inference."""

from dataclasses import dataclass

from common.config import numbers, option, section
from common.data.dataset import DataConfig
from common.evaluate import EvalConfig
from common.infer import ClassTokenInferConfig
from common.optim import OptimConfig
from common.runtime import RuntimeConfig
from common.training import TrainConfig
from common.vit import ViTConfig
from methods.pcss.importance import FIMConfig
from methods.pcss.losses import LossConfig


@dataclass
class ViewsConfig:
    """The random view of a training image."""

    scale: list[float] = option(
        [0.6, 1.2], "Area range of the crop, relative to the image.", flag="--scale", rule=numbers(2)
    )
    interpolation: str = option(
        "bicubic", "Resampling of the crop.", flag="--train-interpolation", choices=("bicubic", "bilinear")
    )
    auto_augment: str = option("rand-m9-mstd0.5-inc1", "timm's RandAugment; empty for none.", flag="--aa")


@dataclass
class PCSSConfig:
    """All sections of a PCSS experiment."""

    data: DataConfig = section(DataConfig)
    views: ViewsConfig = section(ViewsConfig)
    model: ViTConfig = section(ViTConfig)
    loss: LossConfig = section(LossConfig)
    fim: FIMConfig = section(FIMConfig)
    optim: OptimConfig = section(OptimConfig)
    train: TrainConfig = section(TrainConfig)
    infer: ClassTokenInferConfig = section(ClassTokenInferConfig)
    eval: EvalConfig = section(EvalConfig, reference_range=[0.30, 0.59], early_stop=True)
    runtime: RuntimeConfig = section(RuntimeConfig)
