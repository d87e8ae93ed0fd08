"""The configuration of CRT's object localisation: one YAML drives training and evaluation."""

from dataclasses import dataclass

from common.config import Rule, at_least, option, section
from common.data.cub import CUBConfig
from common.errors import UserError
from common.runtime import RuntimeConfig
from common.training import TrainConfig
from methods.crt.wsol_losses import WSOLLossConfig
from methods.crt.wsol_model import WSOLModelConfig
from methods.crt.wsol_optim import WSOLOptimConfig
from methods.crt.wsol_views import WSOLViewConfig

BEST_LOC_FILE = "best_loc.pth"


@dataclass
class WSOLCourseConfig(TrainConfig):
    """The course of the training; its lists are splits of the data set."""

    drop_last: bool = option(False, "Leave out the last, incomplete batch of an epoch; the reference takes it.")


@dataclass
class WSOLEvalConfig:
    """How boxes are made and scored."""

    image_list: str = option("test", "Split that eval_wsol.py scores: test or train.")
    cam_threshold: float = option(
        0.1, "Share of a map's largest value up to which a pixel lies outside the box.", flag="--cam_thr",
        rule=Rule("from 0 to below 1", lambda value: 0 <= value < 1),
    )  # fmt: skip
    batch_size: int = option(64, "Images that go through the network together.", rule=at_least(1))
    vis_limit: int = option(16, "Images on the contact sheet of --vis.", rule=at_least(1))


@dataclass
class WSOLConfig:
    """All sections of a localisation experiment."""

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
        """Checks what no single key can.

        Raises:
            UserError: the crop is larger than what it is cut from.
        """
        if self.views.resize < self.model.deit.img_size:
            raise UserError(
                f"views.resize={self.views.resize} leaves no room for a crop of model.deit.img_size="
                f"{self.model.deit.img_size}"
            )
