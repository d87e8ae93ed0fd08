"""CRT's configuration of object localisation: one YAML drives training and evaluation."""

from dataclasses import dataclass
from typing import ClassVar

from common.data.cub import CUBConfig, check_split
from common.nets.options import ResNetConfig, ViTConfig
from common.run.config import BELOW_ONE, FRACTION, Rule, at_least, numbers, option, section
from common.run.errors import UserError
from common.run.options import RuntimeConfig
from common.run.papers import Instead, PaperFlags
from common.train.course import Position, TrainConfig

BEST_LOC_FILE = "best_loc.pth"
PAPER: PaperFlags = {  # arguments of the paper's train_cam.py and test_cam.py that are none here
    "--config_file": Instead(
        "--exp crt_cub", reason="--config_file names a YAML of the paper's own code, whose keys are others",
        is_answered=True,
    ),
    "--resume": Instead("--load_pretrained {}", names_run=True),
    "MODEL.CAM_THR": Instead("eval.cam_threshold={}"),
    "TEST.SAVE_BOXED_IMAGE": Instead("--vis", only=("True",), reason="pictures are drawn on demand"),
}  # fmt: skip


@dataclass
class WSOLViewConfig:
    """The random view of a training image."""

    resize: int = option(
        256, "Side of the square that an image is brought to before it is cropped to model.deit.img_size.",
        rule=at_least(1),
    )  # fmt: skip


@dataclass
class WSOLModelConfig:
    """Both networks; images are squares of ``deit.img_size``."""

    cnn: ResNetConfig = section(ResNetConfig)
    deit: ViTConfig = section(ViTConfig)


@dataclass
class WSOLLossConfig:
    """The losses; both classification losses have weight 1."""

    consistency: float = option(
        1.0, "Weight of the consistency loss in the epochs in which it is on.", rule=at_least(0)
    )
    period: int = option(
        5, "Epochs from one switch of the consistency loss to the next: it is on in an epoch, counted from 1, whose "
        "quotient by this, rounded down, is odd.", rule=at_least(1),
    )  # fmt: skip

    def consistency_in(self, epoch: int) -> float:
        """The weight of the consistency loss in an epoch (from 0); as published 0 in the first 4, 1 in the next 5."""
        return self.consistency if (epoch + 1) // self.period % 2 else 0.0


@dataclass
class WSOLOptimConfig:
    """AdamW with a step schedule for the DeiT, constant SGD for the CNN; nothing is scaled with the batch."""

    lr: float = option(5e-5, "Learning rate of the DeiT.", flag="--lr", rule=at_least(0))
    decay: float = option(0.1, "Factor by which the DeiT's learning rate falls.", rule=FRACTION)
    decay_epochs: int = option(
        30, "The rate falls at the start of every epoch, counted from 1, that this divides.", rule=at_least(1)
    )
    weight_decay: float = option(
        0.05,
        "Weight decay of the DeiT's matrices and kernels.",
        flag=("--weight-decay", "--weight_decay"),
        rule=at_least(0),
    )
    betas: list[float] = option([0.9, 0.999], "AdamW's betas.", rule=numbers(2, BELOW_ONE))
    eps: float = option(1e-8, "AdamW's epsilon.", rule=at_least(0))
    cnn_lr: float = option(0.005, "Learning rate of the CNN's backbone.", rule=at_least(0))
    cnn_head_scale: float = option(
        10.0, "Learning rate of the CNN's classifier, relative to its backbone's.", rule=at_least(0)
    )
    cnn_weight_decay: float = option(1e-4, "Weight decay of the CNN's trained parameters.", rule=at_least(0))

    def rate(self, position: Position, total: int) -> float:
        """The DeiT's learning rate in the current epoch."""
        return self.lr * self.decay ** ((position.epoch + 1) // self.decay_epochs)


@dataclass
class WSOLCourseConfig(TrainConfig):
    """The course of the training; its lists are splits of the data set."""

    drop_last: bool = option(False, "Leave out an epoch's incomplete last batch; the reference takes it.")


@dataclass
class WSOLEvalConfig:
    """The boxes and their scores."""

    image_list: str = option("test", "Split that eval_wsol.py scores: test or train.")
    tune_list: str = option("", "Split whose best box thresholds eval_wsol.py also uses; empty: none.")
    cam_threshold: float = option(
        0.1, "Share of a map's largest value up to which a pixel lies outside the box.", flag="--cam_thr",
        rule=Rule("from 0 to below 1", lambda value: 0 <= value < 1),
    )  # fmt: skip
    batch_size: int = option(64, "Images per forward pass.", rule=at_least(1))
    vis_limit: int = option(16, "Images on the contact sheet of --vis.", rule=at_least(1))


@dataclass
class WSOLConfig:
    """All sections of a localisation experiment."""

    method: ClassVar[str] = "CRT localisation"
    paper: ClassVar[PaperFlags] = PAPER
    data: CUBConfig = section(CUBConfig)
    views: WSOLViewConfig = section(WSOLViewConfig)
    model: WSOLModelConfig = section(WSOLModelConfig)
    loss: WSOLLossConfig = section(WSOLLossConfig)
    optim: WSOLOptimConfig = section(WSOLOptimConfig)
    train: WSOLCourseConfig = section(
        WSOLCourseConfig, image_list="train", val_list="test", epochs=60, batch_size=64, save_epochs=60,
        validate_from=0, print_freq=50,
    )  # fmt: skip
    eval: WSOLEvalConfig = section(WSOLEvalConfig)
    runtime: RuntimeConfig = section(RuntimeConfig)

    def check(self) -> None:
        """Checks the crop against the resized image.

        Raises:
            UserError: the crop is larger than what it is cut from, or a split does not exist.
        """
        tuning = [self.eval.tune_list] if self.eval.tune_list else []
        for split in (self.train.image_list, self.train.val_list, self.eval.image_list, *tuning):
            check_split(split)
        if self.views.resize < self.model.deit.img_size:
            raise UserError(
                f"views.resize={self.views.resize} leaves no room for a crop of model.deit.img_size="
                f"{self.model.deit.img_size}"
            )
