"""PSA's configuration: one YAML drives its three scripts."""

from dataclasses import dataclass

from common.data.dataset import DataConfig
from common.masks.from_seeds import SeedsConfig
from common.run.config import at_least, option, section
from common.run.device import RuntimeConfig
from common.run.errors import UserError
from common.train.course import CourseConfig, Position
from common.train.schedule import poly
from methods.psa.labels import ViewsConfig
from methods.psa.model import AffinityConfig
from methods.psa.scores import ScoresConfig
from methods.psa.walk import WalkConfig


@dataclass
class SGDConfig:
    """SGD with a poly schedule; the defaults are MCTformer's."""

    lr: float = option(0.01, "Learning rate of the trunk, in the first step.", flag="--lr")
    head_scale: float = option(10.0, "Learning rate of the heads, relative to the trunk's.")
    momentum: float = option(
        5e-4, "SGD's momentum: the reference's own, which passes its weight decay in this place (its 0.9 is the power)."
    )
    weight_decay: float = option(5e-4, "Weight decay, biases excepted.", flag="--wt_dec")
    power: float = option(0.9, "Exponent of the poly schedule.", rule=at_least(0))

    def rate(self, position: Position, total: int) -> float:
        """The trunk's learning rate in the next step of ``total``."""
        return self.lr * poly(position.total_steps, total, self.power)


@dataclass
class AffinityCourseConfig(CourseConfig):
    """The course of the training."""

    def keeps(self, position: Position) -> bool:
        """At the end of the run."""
        return position.epoch + 1 == self.epochs or self.is_over(position)


@dataclass
class RefineConfig:
    """Inference of the masks."""

    image_list: str = option("train_aug", "Images to write masks for.", flag="--infer_list")
    eval_list: str = option(
        "train", "Images whose masks are scored at the end, where there are true ones for them; empty: none."
    )
    batch_size: int = option(4, "Images of one size that go through the network together.", rule=at_least(1))
    num_workers: int = option(4, "Image-loader worker processes.", flag="--num_workers", rule=at_least(0))


@dataclass
class PSAConfig:
    """All sections of a PSA experiment."""

    data: DataConfig = section(DataConfig)
    seeds: SeedsConfig = section(SeedsConfig)
    crf: ScoresConfig = section(ScoresConfig)
    views: ViewsConfig = section(ViewsConfig)
    model: AffinityConfig = section(AffinityConfig)
    optim: SGDConfig = section(SGDConfig)
    train: AffinityCourseConfig = section(AffinityCourseConfig, epochs=5, batch_size=8, print_freq=50)
    walk: WalkConfig = section(WalkConfig)
    infer: RefineConfig = section(RefineConfig)
    runtime: RuntimeConfig = section(RuntimeConfig)

    def check(self, stride: int) -> None:
        """Checks what no single key can.

        Args:
            stride: of the network.

        Raises:
            UserError: a crop is not made of whole cells, or has no pairs.
        """
        side = self.views.crop // stride
        radius = self.model.radius
        if self.views.crop % stride or side < 2 * radius - 1:
            raise UserError(
                f"views.crop={self.views.crop} does not suit the network: it must be a multiple of {stride} and, for "
                f"model.radius={radius}, at least {stride * (2 * radius - 1)}"
            )
