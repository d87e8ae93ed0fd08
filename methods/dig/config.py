"""DiG's configuration: one YAML drives training and inference."""

from dataclasses import dataclass

from common.data.dataset import DataConfig
from common.data.transforms import ViewConfig
from common.nets.vit import ViTConfig
from common.run.config import section
from common.run.device import RuntimeConfig
from common.score.evaluate import EvalConfig
from common.seeds.infer import ClassTokenInferConfig
from common.train.course import TrainConfig
from common.train.schedule import OptimConfig
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
