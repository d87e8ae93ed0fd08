"""PCSS's configuration: one YAML drives training and inference."""

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
from methods.pcss.importance import FIMConfig
from methods.pcss.losses import LossConfig


@dataclass
class PCSSConfig:
    """All sections of a PCSS experiment."""

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
