"""DiG's configuration: one YAML drives training and inference."""

from dataclasses import dataclass

from common.config import numbers, option, section
from common.data.dataset import DataConfig
from common.evaluate import EvalConfig
from common.infer import ClassTokenInferConfig
from common.optim import OptimConfig
from common.runtime import RuntimeConfig
from common.training import TrainConfig
from common.vit import ViTConfig
from methods.dig.guide import GuideConfig
from methods.dig.losses import LossConfig
from methods.dig.unet import UNetConfig


@dataclass
class ViewsConfig:
    """The random view of a training image, which the classifier and the diffusion model both see."""

    scale: list[float] = option(
        [0.3, 1.2], "Area range of the crop, relative to the image.", flag="--scale", rule=numbers(2)
    )
    interpolation: str = option(
        "bicubic", "Resampling of the crop.", flag="--train-interpolation", choices=("bicubic", "bilinear")
    )
    auto_augment: str = option(
        "", "timm's RandAugment, such as rand-m9-mstd0.5-inc1; empty for none, as the diffusion model expects.",
        flag="--aa",
    )  # fmt: skip


@dataclass
class DiGConfig:
    """All sections of a DiG experiment."""

    data: DataConfig = section(DataConfig)
    views: ViewsConfig = section(ViewsConfig)
    model: ViTConfig = section(ViTConfig)
    loss: LossConfig = section(LossConfig)
    diffusion: GuideConfig = section(GuideConfig)
    unet: UNetConfig = section(UNetConfig)
    optim: OptimConfig = section(OptimConfig)
    train: TrainConfig = section(TrainConfig, batch_size=32)
    infer: ClassTokenInferConfig = section(ClassTokenInferConfig)
    eval: EvalConfig = section(EvalConfig, reference_range=[0.35, 0.69], early_stop=True)
    runtime: RuntimeConfig = section(RuntimeConfig)
