"""PSA's configuration: one YAML drives its three scripts."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from common.crf.options import CRFConfig, crf_folder
from common.data.layout import DataConfig
from common.data.seeds import FORMATS
from common.masks.options import SeedsConfig
from common.nets.options import BLOCKS, PRETRAINED_DIR, check_pretrained
from common.run.config import ABOVE_ZERO, BELOW_ONE, FRACTION, Rule, at_least, numbers, option, section
from common.run.errors import UserError
from common.run.folder import RunFolder
from common.run.options import RuntimeConfig
from common.run.papers import Instead, PaperFlags
from common.train.course import CourseConfig, Position
from common.train.schedule import poly

STRIDE = 8  # of all trunks but tiny, whose cells are smaller
TINY_STRIDE = 2
_IN_RUN = "marginals are in the run folder, crf/<exponent>/"
PAPER: PaperFlags = {  # flags of the paper's train_aff.py and infer_aff.py that are no flags here
    "--cam_dir": Instead("--seeds {}"), "--weights": Instead("--load_pretrained {}"),
    "--session_name": Instead(names_run=True), "--out_rw": Instead(names_run=True),
    "--la_crf_dir": Instead(reason=_IN_RUN), "--ha_crf_dir": Instead(reason=_IN_RUN),
    "--network": Instead(reason="model.arch names the network"),
}  # fmt: skip
TWO_DIGITS = Rule("from 1 to 99", lambda value: 1 <= value <= 99)


@dataclass
class PSACRFConfig(CRFConfig):
    """Dense CRF of the seeds; the exponents are MCTformer's, all other defaults PSA's."""

    low_alpha: int = option(
        1, "Background exponent of the CRF whose foreground is trusted: the lower, the less foreground.",
        flag="--low_alpha", rule=TWO_DIGITS,
    )  # fmt: skip
    high_alpha: int = option(
        12, "Background exponent of the CRF whose background is trusted: the higher, the less background.",
        flag="--high_alpha", rule=TWO_DIGITS,
    )  # fmt: skip
    format: str = option("npy", "Files: npy (float32, exact), or npz (float16, half the disk).", choices=FORMATS)

    def check(self) -> None:
        """Checks backend and exponents.

        Raises:
            UserError: as `CRFConfig.check` and `alphas`.
        """
        super().check()
        self.alphas()

    def check_run(self, run: RunFolder) -> None:
        """Checks the folders of a training.

        Raises:
            UserError: one is missing.
        """
        for alpha in self.alphas():
            if not crf_folder(run.crf, alpha).is_dir():
                raise UserError(
                    f"no CRF marginals in {crf_folder(run.crf, alpha)}. Make them with: python methods/psa/make_crf.py "
                    f"--name {run.name} --seeds FOLDER"
                )

    def alphas(self) -> tuple[int, int]:
        """Both exponents.

        Raises:
            UserError: they are not in order.
        """
        if self.low_alpha >= self.high_alpha:
            raise UserError(f"crf.low_alpha={self.low_alpha} must be less than crf.high_alpha={self.high_alpha}")
        return self.low_alpha, self.high_alpha

    def settings(self) -> dict[str, object]:
        """The settings that the files depend on: all but backend and device, which give the same labels."""
        return {
            key: value
            for key, value in vars(self).items()
            if key not in ("backend", "device", "low_alpha", "high_alpha")
        }


@dataclass
class PSAViewConfig:
    """The random view of a training image."""

    crop_size: int = option(
        448, "Side of the crop in pixels; smaller images are padded.", flag="--crop_size", rule=at_least(1),
        formerly="crop",
    )  # fmt: skip
    jitter: list[float] = option(
        [0.3, 0.3, 0.3, 0.1],
        "Strength of the jitter of brightness, contrast, saturation and hue.",
        rule=numbers(4, at_least(0)),
    )


RESNET38_FILE = "res38_cls.pth"  # the classifier that PSA's authors publish


def resnet38_weights(source: str) -> Path:
    """The file that the trunk resnet38 starts from.

    Args:
        source: a file, or ``auto``.

    Raises:
        UserError: ``auto``, and it is not in its place.
    """
    path = PRETRAINED_DIR / RESNET38_FILE if source == "auto" else Path(source)
    if source == "auto" and not path.is_file():
        raise UserError(
            f"no weights of ResNet-38 at {path} (from {Path.cwd()}): {RESNET38_FILE} is published by PSA's "
            "authors. Without it: model.arch=resnet50, which starts from ImageNet; or random weights on purpose: "
            "model.pretrained=none"
        )
    return path


@dataclass
class PSAModelConfig:
    """Network and pairs."""

    arch: str = option(
        "resnet38", "Trunk: resnet38 as published, a ResNet of ImageNet, or tiny (half resolution, random weights).",
        choices=("resnet38", *BLOCKS, "tiny"),
    )  # fmt: skip
    pretrained: str = option(
        "auto", "auto (a file in pretrained/; for ResNets also torchvision's hub), none (random), or a file.",
        flag="--weights",
    )  # fmt: skip
    radius: int = option(5, "Two cells form a pair if they are closer than this many cells.", rule=at_least(2))

    def check_start(self, is_resumed: bool) -> None:
        """Checks the weights of a training.

        Raises:
            UserError: as `resnet38_weights` and `check_pretrained`.
        """
        if is_resumed or self.arch == "tiny" or self.pretrained == "none":
            return
        if self.arch == "resnet38":
            resnet38_weights(self.pretrained)
        check_pretrained(self.pretrained, is_resumed)

    @property
    def stride(self) -> int:
        """Side of a cell in pixels of the image."""
        return TINY_STRIDE if self.arch == "tiny" else STRIDE


@dataclass
class PSAOptimConfig:
    """SGD with a poly schedule; the defaults are MCTformer's."""

    lr: float = option(0.01, "Learning rate of the trunk, in the first step.", flag="--lr", rule=at_least(0))
    head_scale: float = option(10.0, "Learning rate of the heads, relative to the trunk's.", rule=at_least(0))
    momentum: float = option(
        5e-4,
        "SGD's momentum: the reference passes its weight decay in this place (its 0.9 is the power).",
        rule=BELOW_ONE,
    )
    weight_decay: float = option(5e-4, "Weight decay, biases excepted.", flag="--wt_dec", rule=at_least(0))
    power: float = option(0.9, "Exponent of the poly schedule.", rule=at_least(0))

    def rate(self, position: Position, total: int) -> float:
        """The trunk's learning rate in the next step of ``total``."""
        return self.lr * poly(position.total_steps, total, self.power)


@dataclass
class PSACourseConfig(CourseConfig):
    """The course of the training."""

    def keeps(self, position: Position) -> bool:
        """At the end of the run."""
        return position.epoch + 1 == self.epochs or self.is_over(position)


@dataclass
class WalkConfig:
    """The walk; the defaults are MCTformer's."""

    background: str = option(
        "constant", "Background's value: constant (bg_thr), or alpha: (1 - largest foreground value)^bg_alpha.",
        choices=("constant", "alpha"),
    )  # fmt: skip
    bg_thr: float = option(0.39, "The constant: the best threshold of the seeds.", flag="--bg_thr", rule=FRACTION)
    bg_alpha: float = option(16.0, "The exponent.", flag="--alpha", rule=ABOVE_ZERO)
    beta: float = option(8.0, "Exponent of the affinities.", flag="--beta", rule=at_least(0))
    log2_rounds: int = option(
        6, "The walk has 2 to the power of this many rounds.", flag="--logt",
        rule=Rule("from 0 to 12", lambda value: 0 <= value <= 12),
    )  # fmt: skip


@dataclass
class PSAInferConfig:
    """Inference of the masks."""

    image_list: str = option("train_aug", "Images to write masks for.", flag="--infer_list")
    eval_list: str = option(
        "train", "Images whose masks are scored at the end, where they have true masks; empty: none."
    )
    batch_size: int = option(4, "Images of one size that go through the network together.", rule=at_least(1))
    num_workers: int = option(4, "Image-loader worker processes.", flag="--num_workers", rule=at_least(0))


@dataclass
class PSAConfig:
    """All sections of a PSA experiment."""

    method: ClassVar[str] = "PSA"
    paper: ClassVar[PaperFlags] = PAPER
    data: DataConfig = section(DataConfig)
    seeds: SeedsConfig = section(SeedsConfig)
    crf: PSACRFConfig = section(PSACRFConfig)
    views: PSAViewConfig = section(PSAViewConfig)
    model: PSAModelConfig = section(PSAModelConfig)
    optim: PSAOptimConfig = section(PSAOptimConfig)
    train: PSACourseConfig = section(PSACourseConfig, epochs=5, batch_size=8, print_freq=50)
    walk: WalkConfig = section(WalkConfig)
    infer: PSAInferConfig = section(PSAInferConfig)
    runtime: RuntimeConfig = section(RuntimeConfig)

    def check(self) -> None:
        """Checks the crop against the network.

        Raises:
            UserError: the crop is no whole number of cells, or has no room for pairs.
        """
        stride = self.model.stride
        size = self.views.crop_size
        radius = self.model.radius
        if size % stride or size // stride < 2 * radius - 1:
            raise UserError(
                f"views.crop_size={size} does not suit the network: it must be a multiple of {stride} and, for "
                f"model.radius={radius}, at least {stride * (2 * radius - 1)}"
            )
