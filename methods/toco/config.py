"""ToCo's configuration: one YAML drives training and inference."""

from dataclasses import dataclass

from common.checkpoint import Position
from common.config import at_least, option, section
from common.data.dataset import DataConfig
from common.evaluate import EvalConfig
from common.runtime import RuntimeConfig
from common.training import CourseConfig
from methods.toco.cams import ToCoInferConfig
from methods.toco.energy import EnergyConfig
from methods.toco.labels import LabelConfig
from methods.toco.model import ToCoModelConfig
from methods.toco.optim import ToCoOptimConfig
from methods.toco.step import LossConfig
from methods.toco.views import ToCoViewConfig

WEIGHTS_FILE = "model_iter_{}.pth"


@dataclass
class ToCoCourseConfig(CourseConfig):
    """The course of the training, in steps."""

    val_list: str = option("val", "Images that are validated on; needs masks.", flag="--val_set")
    val_limit: int = option(0, "Validate on the first so many of them; 0: all.", rule=at_least(0))
    val_size: int = option(448, "Side to which images are brought for validation.", rule=at_least(1))
    val_batch: int = option(8, "Images that validation gives to the network at a time.", rule=at_least(1))
    eval_steps: int = option(
        2000,
        "Steps between two validations; the last step is one, too. 0: never.",
        flag="--eval_iters",
        rule=at_least(0),
    )
    keep_steps: int = option(
        2000, "Steps between two files model_iter_N.pth; the last step gets one, too. 0: none.", rule=at_least(0)
    )

    def validates_at(self, position: Position, steps: int) -> bool:
        """Every ``eval_steps`` steps, and at the end."""
        return self.validates_at_all() and _is_due(position, self.eval_steps, self.is_over(position))

    def validates_at_all(self) -> bool:
        """Whether the weights are ever scored."""
        return self.eval_steps > 0

    def keeps_weights(self, position: Position, is_last: bool) -> bool:
        """Whether the weights at this point get a file of their own."""
        return self.keep_steps > 0 and _is_due(position, self.keep_steps, is_last)


def _is_due(position: Position, every: int, is_last: bool) -> bool:
    return position.total_steps > 0 and (position.total_steps % every == 0 or is_last)


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
        ToCoCourseConfig, epochs=1_000_000, max_steps=20_000, batch_size=4, print_freq=200, save_steps=1000
    )
    infer: ToCoInferConfig = section(ToCoInferConfig)
    eval: EvalConfig = section(EvalConfig, fixed_threshold=0.5)
    runtime: RuntimeConfig = section(RuntimeConfig)
