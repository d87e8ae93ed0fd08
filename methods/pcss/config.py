"""PCSS's configuration: one YAML drives training and inference."""

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
