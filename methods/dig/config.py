"""DiG's configuration: one YAML drives training and inference."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from common.data.layout import DataConfig
from common.data.options import ViewConfig
from common.nets.options import PRETRAINED_DIR, ViTConfig
from common.run.config import ABOVE_ZERO, FRACTION, Rule, at_least, option, section
from common.run.errors import UserError
from common.run.options import RuntimeConfig
from common.run.papers import TIMM, PaperFlags
from common.score.options import EvalConfig
from common.seeds.options import ClassTokenInferConfig
from common.train.course import TrainConfig
from common.train.schedule import OptimConfig

LFCA_HEADS = 8
RELEASED_FILE = "model-140-pascal.pt"
ENDINGS = (".ptht.pth", ".pth", ".pt")  # under which the released file circulates
NORM_GROUPS = 8  # of the diffusion network's group norms
TIMESTEPS = 1000  # T of the published model
FEATURE_TIMESTEPS = (0, 1, 2, 3, 4)
DENOISE_TIMESTEP = 100  # the paper's text says 60
_IN_RANGE = f"from 0 to {TIMESTEPS - 1}"


@dataclass
class UNetConfig:
    """The diffusion network; the defaults are the released model's."""

    dim: int = option(
        64,
        "Width of the diffusion network at full resolution.",
        rule=Rule(f"a positive multiple of {NORM_GROUPS}", lambda value: value > 0 and value % NORM_GROUPS == 0),
    )
    dim_mults: list[int] = option(
        [1, 2, 4, 8],
        "Widths of the stages as multiples of dim; all stages but the last halve the resolution.",
        rule=Rule("positive whole numbers, one at least", lambda values: len(values) > 0 and min(values) > 0),
    )

    @property
    def stages(self) -> list[tuple[int, int]]:
        """Channels that enter and leave each down stage."""
        widths = [self.dim, *(self.dim * factor for factor in self.dim_mults)]
        return list(itertools.pairwise(widths))

    @property
    def tap_channels(self) -> list[int]:
        """Channels of the feature taps: middle, then each up stage; 512, 256, 128, 64, 64 by default."""
        return [self.stages[-1][1], *(entering for entering, _ in reversed(self.stages))]

    @property
    def stride(self) -> int:
        """Common divisor of a permitted image's height and width: 8 by default."""
        return 2 ** (len(self.dim_mults) - 1)

    def check_size(self, size: int, key: str) -> None:
        """Checks the side of the images.

        Args:
            key: the configuration key that sets it.

        Raises:
            UserError: the network does not take images of this size.
        """
        if size % self.stride:
            raise UserError(
                f"{key}={size} does not suit the diffusion network, which takes multiples of {self.stride} "
                f"(unet.dim_mults={list(self.dim_mults)})"
            )


@dataclass
class GuideConfig:
    """The frozen diffusion model, and the timesteps at which it is used."""

    file: str = option(
        str(PRETRAINED_DIR / RELEASED_FILE),
        "The diffusion model: the released file, one written by methods/dig/train_diffusion.py, or a state dict.",
    )
    feature_timesteps: list[int] = option(
        list(FEATURE_TIMESTEPS), "Timesteps whose decoder features LFCA reads.",
        rule=Rule(
            f"one or more whole numbers {_IN_RANGE}",
            lambda values: bool(values) and 0 <= min(values) <= max(values) < TIMESTEPS,
        ),
    )  # fmt: skip
    denoise_timestep: int = option(
        DENOISE_TIMESTEP, "Timestep to which images are noised, and from which they are denoised (the paper says 60).",
        rule=Rule(_IN_RANGE, lambda value: 0 <= value < TIMESTEPS),
    )  # fmt: skip
    max_rows: int = option(
        0,
        "Memory limit: pairs of image and timestep per forward pass of the diffusion network; 0: by size, for the "
        "released network and 224 pixels 1 on CPUs and 41 elsewhere.",
        rule=at_least(0),
    )


@dataclass
class LossConfig:
    """The losses (paper symbols: docs/dig.md)."""

    weights: list[float] = option(
        [1.0, 1.0, 1.0, 1.0, 10.0],
        "W: weights of classification, of LFCA's predictions, of the CAM against the diffusion CAM, of classifying "
        "denoised images, and of their refined CAM; 0 switches one off, and 1 0 0 0 0 needs no diffusion model.",
        flag="--W", rule=Rule("5 numbers, none below 0", lambda values: len(values) == 5 and min(values) >= 0),
    )  # fmt: skip
    temperature: float = option(
        5.0, "T: softens the logits when LFCA's predictions are compared with the classifier's.",
        rule=ABOVE_ZERO,
    )  # fmt: skip
    alpha: float = option(
        0.2, "Share of the image labels in the loss of LFCA's predictions; the rest is that comparison.",
        rule=FRACTION,
    )  # fmt: skip
    cam_start_epoch: int = option(10, "Epoch (from 0) from which the two CAM losses count.", rule=at_least(0))
    merge_passes: bool = option(
        False,
        "Fast on GPUs: images and denoised images in one pass (with stochastic depth: other draws).",
    )

    def trains_lfca(self) -> bool:
        """Whether a loss trains LFCA; without one, random weights make the diffusion CAM."""
        return self.weights[1] > 0

    def has_lfca(self) -> bool:
        """Whether a loss reads the output of LFCA."""
        return self.weights[1] > 0 or self.weights[2] > 0

    def compares_cams(self, epoch: int) -> bool:
        """Whether the CAM is compared with the diffusion CAM."""
        return self.weights[2] > 0 and epoch >= self.cam_start_epoch

    def compares_rcams(self, epoch: int) -> bool:
        """Whether refined CAMs of images and denoised images are compared."""
        return self.weights[4] > 0 and epoch >= self.cam_start_epoch

    def uses_features(self, epoch: int) -> bool:
        """Whether diffusion features are read."""
        return self.weights[1] > 0 or self.compares_cams(epoch)

    def uses_denoised(self, epoch: int) -> bool:
        """Whether denoised images are read."""
        return self.weights[3] > 0 or self.compares_rcams(epoch)

    def uses_diffusion(self) -> bool:
        """Whether the diffusion model is needed in any epoch."""
        return any(weight > 0 for weight in self.weights[1:])


def require_diffusion(path: str | Path) -> Path:
    """The file of a diffusion model: that path, or the same name with another of the `ENDINGS`.

    Raises:
        UserError: it is not; the message tells where files come from.
    """
    path = Path(path)
    ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), "")
    stem = path.name.removesuffix(ending)
    found = [place for place in (path, *(path.with_name(stem + other) for other in ENDINGS)) if place.is_file()]
    if not found:
        raise UserError(
            f"no diffusion model at {path} (from {Path.cwd()}). Put the released one, {RELEASED_FILE}, into "
            f"{PRETRAINED_DIR}/; or train your own with methods/dig/train_diffusion.py and name its file; or do "
            "without: loss.weights=[1,0,0,0,0] needs none"
        )
    return found[0]


def check_lfca_width(dim: int, channels: int) -> None:
    """Checks the widths that LFCA's heads share.

    Args:
        dim: the classifier's width.
        channels: those of the diffusion features of a timestep.

    Raises:
        UserError: one does not divide into the heads.
    """
    if dim % LFCA_HEADS or channels % LFCA_HEADS:
        raise UserError(
            f"LFCA has {LFCA_HEADS} heads: the classifier's width ({dim}, model.embed_dim) and the channels of the "
            f"diffusion features ({channels}, from unet.dim and unet.dim_mults) must be multiples of {LFCA_HEADS}"
        )


def check_lfca_depth(depth: int) -> None:
    """Checks that there are the two blocks whose queries LFCA takes.

    Raises:
        UserError: a network of ``depth`` blocks has fewer.
    """
    if depth < 2:
        raise UserError(f"LFCA takes the queries of the last two blocks, and model.depth is {depth}")


@dataclass
class DiGConfig:
    """All sections of a DiG experiment."""

    method: ClassVar[str] = "DiG"
    paper: ClassVar[PaperFlags] = TIMM
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

    def check(self) -> None:
        """Checks the classifier against the diffusion network and LFCA, if a loss needs them.

        Raises:
            UserError: the image size, the depth or a width does not suit.
        """
        if self.loss.uses_diffusion():
            self.unet.check_size(self.model.img_size, "model.img_size")
        if self.loss.has_lfca():
            dim, depth, _ = self.model.dimensions()
            check_lfca_depth(depth)
            check_lfca_width(dim, sum(self.unet.tap_channels))

    def check_start(self, is_resumed: bool) -> None:
        """Checks the diffusion model of a training, a resumed one as well.

        Raises:
            UserError: a loss needs one, and there is no such file.
        """
        if self.loss.uses_diffusion():
            require_diffusion(self.diffusion.file)
