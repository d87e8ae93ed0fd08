"""DiG's configuration: one YAML drives training and inference."""

from dataclasses import dataclass

from common.config import section
from common.course import TrainConfig
from common.data.dataset import DataConfig
from common.data.transforms import ViewConfig
from common.evaluate import EvalConfig
from common.infer import ClassTokenInferConfig
from common.runtime import RuntimeConfig
from common.schedule import OptimConfig
from common.vit import ViTConfig
from methods.dig.guide import GuideConfig
from methods.dig.losses import LossConfig
from methods.dig.unet import UNetConfig


@dataclass
class DiGConfig:
    """All sections of a DiG experiment."""

    data: DataConfig = section(DataConfig)
    views: ViewConfig = section(ViewConfig, scale=[0.3, 1.2], auto_augment="")
    model: ViTConfig = section(ViTConfig)
    loss: LossConfig = section(LossConfig)
    diffusion: GuideConfig = section(GuideConfig)
    unet: UNetConfig = section(UNetConfig)
    optim: OptimConfig = section(OptimConfig)
    train: TrainConfig = section(TrainConfig, batch_size=32)
    infer: ClassTokenInferConfig = section(ClassTokenInferConfig)
    eval: EvalConfig = section(EvalConfig, reference_range=[0.35, 0.69], early_stop=True)
    runtime: RuntimeConfig = section(RuntimeConfig)
