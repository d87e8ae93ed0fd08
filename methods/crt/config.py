"""CRT's configuration on segmentation data: one YAML drives training, seeds and the stages after them."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from common.data.layout import DataConfig
from common.nets.options import ResNetConfig, ViTConfig
from common.pipeline.options import StageConfig
from common.run.config import ABOVE_ZERO, at_least, option, pair, section
from common.run.errors import UserError
from common.run.folder import SEEDS_DIR
from common.run.options import RuntimeConfig
from common.run.papers import Instead, PaperFlags
from common.score.options import EvalConfig
from common.seeds.options import SCALES, InferConfig
from common.train.course import Position, TrainConfig
from common.train.schedule import LAYER_DECAY, poly

if TYPE_CHECKING:
    import torch

    from common.data.whole import Transform

_PLACES = "--cam_weights_name", "--irn_weights_name", "--cam_out_dir", "--ir_label_out_dir", "--sem_seg_out_dir"
_INSTANCES = "--make_ins_seg_pass", "--eval_ins_seg_pass", "--ins_seg_bg_thres", "--ins_seg_out_dir"
PAPER: PaperFlags = {  # flags of the paper's run_sample.py that are no flags here
    **dict.fromkeys((*_PLACES, "--log_name"), Instead(reason="the places are the run folders")),
    **dict.fromkeys(_INSTANCES, Instead(reason="instance segmentation is not part of this repository")),
    **dict.fromkeys(
        ("--cam_network", "--irn_network"), Instead(reason="model.cnn.arch, model.deit.arch name the networks")
    ),
}


@dataclass
class CRTViewConfig:
    """The random view of a training image."""

    long_side: list[int] = option(
        [210, 420], "Smallest and largest length that an image's long side is brought to, in pixels.",
        rule=pair(ABOVE_ZERO),
    )  # fmt: skip
    crop_size: int = option(
        336, "Side of the crop in pixels: a multiple of half a tile.", flag="--cam_crop_size", rule=at_least(1)
    )


@dataclass
class CRTModelConfig:
    """Both networks. The side of a tile is ``deit.img_size``; tiles overlap by half of it."""

    cnn: ResNetConfig = section(ResNetConfig, arch="resnet152")
    deit: ViTConfig = section(ViTConfig, drop_path=0.0)
    passes: int = option(3, "Passes of the tokens through the DeiT's blocks.", rule=at_least(1))

    def check(self) -> None:
        """Checks the tiles.

        Raises:
            UserError: half a tile is no whole number of patches.
        """
        self.deit.check()
        if self.deit.img_size % (2 * self.deit.patch_size):
            raise UserError(
                f"model.deit.img_size={self.deit.img_size}, the side of a tile, is no multiple of two patches of "
                f"{self.deit.patch_size}: tiles overlap by half"
            )


@dataclass
class LossConfig:
    """The losses; both classification losses have weight 1."""

    cam_lambda: float = option(0.1, "Weight of the consistency loss.", flag="--cam_lambda", rule=at_least(0))
    consistency_from: int = option(1, "First epoch (from 0) in which the consistency loss counts.", rule=at_least(0))

    def is_consistent(self, epoch: int) -> bool:
        """Whether the consistency loss counts in an epoch."""
        return epoch >= self.consistency_from


@dataclass
class CRTOptimConfig:
    """SGD with a poly schedule; nothing is scaled with the batch."""

    lr: float = option(0.1, "Learning rate of both backbones.", flag=("--cam_learning_rate", "--lr"), rule=at_least(0))
    head_scale: float = option(10.0, "Learning rate of both classifiers, relative to the backbones'.", rule=at_least(0))
    layer_decay: float = option(
        1.0, "Factor of the learning rate from each layer of the DeiT to the one before it.", rule=LAYER_DECAY
    )
    momentum: float = option(
        1e-4, "SGD's momentum: the reference passes the weight decay in its place, and its results come from that.",
        rule=at_least(0),
    )  # fmt: skip
    weight_decay: float = option(
        1e-4,
        "Weight decay of all trained parameters, norms, biases and tokens included.",
        flag="--cam_weight_decay",
        rule=at_least(0),
    )
    power: float = option(0.9, "Exponent of the poly schedule.", rule=at_least(0))

    def rate(self, position: Position, total: int) -> float:
        """The backbones' learning rate in the next step of ``total``; after the end the last step's rate."""
        return self.lr * poly(min(position.total_steps, total - 1), total, self.power)


@dataclass
class CRTCourseConfig(TrainConfig):
    """The course of the training, with the flags of the reference's command."""

    epochs: int = option(10, "Epochs.", flag=("--cam_num_epoches", "--epochs"), rule=at_least(1))
    batch_size: int = option(
        16, "Global batch: images of one optimiser step over all processes and micro-batches.",
        flag=("--cam_batch_size", "--batch_size", "--batch-size"), rule=at_least(1),
    )  # fmt: skip
    validate_from: int = option(
        -1, "Score seeds after every epoch from this one (from 0); -1: never.", rule=at_least(-1)
    )


@dataclass
class CRTInferConfig(InferConfig):
    """Seed inference."""

    image_list: str = option("train_aug", "Images to write seeds for.", flag="--infer_list")
    eval_list: str = option(
        "train", "Images whose seeds are scored at the end, if they have true masks; empty: none.",
        flag="--chainer_eval_set",
    )  # fmt: skip
    scales: list[float] = option(
        [1.0, 0.5, 1.5, 2.0, 0.75, 1.25, 1.75], "Image scales whose CAMs are summed.", flag="--cam_scales", rule=SCALES
    )
    batch_size: int = option(
        1, "Images of one size whose tiles share forward passes; a VOC photo has 306 tiles.",
        rule=at_least(1),
    )  # fmt: skip
    tiles: int = option(
        0, "Tiles per forward pass; 0: 128 on a GPU, 12 on a CPU, whose caches hold no more.",
        rule=at_least(0),
    )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """As `InferConfig.settings`."""
        return {**super().settings(), "tiles": self.tiles}

    def tiles_on(self, device: "torch.device") -> int:
        """Tiles per forward pass on a device."""
        return self.tiles or (12 if device.type == "cpu" else 128)

    def transform(self) -> "Transform":
        """The normalised image, and its views at all scales."""
        from methods.crt.cams import image_and_views

        return functools.partial(image_and_views, scales=list(self.scales))


@dataclass
class CRTEvalConfig(EvalConfig):
    """The background thresholds at which seeds are scored."""

    fixed_threshold: float = option(
        0.15,
        "The reference's only threshold; its score is reported beside the best.",
        flag="--cam_eval_thres",
        rule=at_least(0),
    )


@dataclass
class CRTConfig:
    """All sections of a CRT experiment; ``irn`` is the stage with which `run_sample.py` refines the seeds."""

    method: ClassVar[str] = "CRT"
    paper: ClassVar[PaperFlags] = PAPER
    data: DataConfig = section(DataConfig)
    views: CRTViewConfig = section(CRTViewConfig)
    model: CRTModelConfig = section(CRTModelConfig)
    loss: LossConfig = section(LossConfig)
    optim: CRTOptimConfig = section(CRTOptimConfig)
    train: CRTCourseConfig = section(CRTCourseConfig, print_freq=100)
    infer: CRTInferConfig = section(CRTInferConfig)
    irn: StageConfig = section(StageConfig, exp="irn_crt")
    eval: CRTEvalConfig = section(CRTEvalConfig)
    runtime: RuntimeConfig = section(RuntimeConfig)

    def check(self) -> None:
        """Checks the crop against the tiles.

        Raises:
            UserError: the crop cannot be cut into tiles.
        """
        tile = self.model.deit.img_size
        size = self.views.crop_size
        if tile % 2 or size < tile or size % (tile // 2):
            raise UserError(
                f"views.crop_size={size} cannot be cut into tiles of model.deit.img_size={tile} that overlap by half: "
                f"it must be at least that, and a multiple of {tile / 2:g}"
            )


def strided_path(seeds: Path) -> Path:
    """The folder of the strided maps beside a folder of seeds."""
    return seeds.parent / ("cam" if seeds.name == SEEDS_DIR else f"{seeds.name}_cam")
