"""DiG's configuration of the diffusion model's training; its section ``unet`` is the classifier's, too."""

from dataclasses import dataclass
from typing import ClassVar

from common.data.layout import DataConfig
from common.run.config import BELOW_ONE, FRACTION, Rule, at_least, numbers, option, section
from common.run.options import RuntimeConfig
from common.train.course import CourseConfig, Position
from methods.dig.config import TIMESTEPS, UNetConfig, require_diffusion


@dataclass
class DiffusionViewConfig:
    """The view of a training image: shorter side to ``size``, random flip, central crop."""

    size: int = option(224, "Side of the training images in pixels.", flag="--input-size", rule=at_least(1))
    flip: float = option(0.5, "Probability of a horizontal flip.", rule=FRACTION)


@dataclass
class DiffusionOptimConfig:
    """Adam at a constant learning rate."""

    lr: float = option(1e-4, "Learning rate; not scaled with the batch.", flag="--lr", rule=at_least(0))
    betas: list[float] = option([0.9, 0.99], "Adam's betas.", rule=numbers(2, BELOW_ONE))
    eps: float = option(1e-8, "Adam's epsilon.", rule=at_least(0))
    clip: float = option(1.0, "Largest norm of the gradient; 0: not clipped.", rule=at_least(0))

    def rate(self, position: Position, total: int) -> float:
        """The learning rate, which is constant."""
        return self.lr


@dataclass
class DiffusionCourseConfig(CourseConfig):
    """The course of the training, in steps."""

    save_steps: int = option(
        1000, "Steps between two writes of last.pth; 0: after every epoch. The end of the run has one in any case.",
        rule=at_least(0),
    )  # fmt: skip
    save_every: int = option(
        5000, "Steps between two milestones: ckpt/model-N.pt and a preview; the last step is one, too.",
        rule=at_least(1),
    )  # fmt: skip
    init: str = option(
        "", "A diffusion model's file to start from, the released or your own; empty: random weights.", flag="--init"
    )
    cache: bool = option(False, "Decode all images at the start, and keep them in memory at the training size.")
    channels_last: bool = option(True, "Channels-last memory format on GPUs.")

    def check_start(self, is_resumed: bool) -> None:
        """Checks batch and first weights.

        Raises:
            UserError: as `CourseConfig.check_start` and `require_diffusion`.
        """
        super().check_start(is_resumed)
        if self.init and not is_resumed:
            require_diffusion(self.init)

    def saves_after(self, epoch: int) -> bool:
        """Whether last.pth is written after this epoch: only if ``save_steps`` is 0."""
        return not self.save_steps


@dataclass
class EMAConfig:
    """The average of the weights, which makes the previews; DiG itself uses the raw weights."""

    decay: float = option(0.995, "Largest decay, which it grows to.", rule=BELOW_ONE)
    every: int = option(10, "Steps from one update to the next.", rule=at_least(1))
    after: int = option(100, "The last step at which the weights are copied instead of averaged.", rule=at_least(0))


@dataclass
class SamplingConfig:
    """The previews."""

    images: int = option(25, "Images of a preview; 0: no previews.", rule=at_least(0))
    steps: int = option(
        150, "DDIM steps of a preview.",
        rule=Rule(f"from 1 to {TIMESTEPS}", lambda value: 1 <= value <= TIMESTEPS),
    )  # fmt: skip


@dataclass
class DiffusionConfig:
    """All sections of a diffusion experiment."""

    method: ClassVar[str] = "DiG diffusion"
    data: DataConfig = section(DataConfig)
    views: DiffusionViewConfig = section(DiffusionViewConfig)
    unet: UNetConfig = section(UNetConfig)
    optim: DiffusionOptimConfig = section(DiffusionOptimConfig)
    train: DiffusionCourseConfig = section(
        DiffusionCourseConfig, epochs=1_000_000, max_steps=700_000, batch_size=32, print_freq=100
    )
    ema: EMAConfig = section(EMAConfig)
    sampling: SamplingConfig = section(SamplingConfig)
    runtime: RuntimeConfig = section(RuntimeConfig)

    def check(self) -> None:
        """Checks the image size against the network.

        Raises:
            UserError: as `UNetConfig.check_size`.
        """
        self.unet.check_size(self.views.size, "views.size")
