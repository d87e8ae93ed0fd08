"""ToCo's configuration: one YAML drives training and inference."""

from dataclasses import dataclass
from typing import Any, ClassVar

from common.data.layout import DataConfig
from common.masks.options import SegmentConfig
from common.nets.options import KNOWN_ARCH, ViTConfig
from common.run.config import ABOVE_ZERO, BELOW_ONE, FRACTION, Rule, at_least, between, numbers, option, pair, section
from common.run.errors import UserError
from common.run.options import RuntimeConfig
from common.run.papers import Instead, PaperFlags
from common.score.options import EvalConfig
from common.seeds.options import SCALES, InferConfig
from common.train.course import Position, StepCourseConfig
from common.train.schedule import LAYER_DECAY, poly

WEIGHTS_FILE = "model_iter_{}.pth"
CROPS = 8  # local crops of an image
ITERATIONS = 10  # of PAR
DILATIONS = (1, 2, 4, 8, 12, 24)
SEED_MAPS = ("cam", "cam_aux", "seg")
PAPER: PaperFlags = {  # flags of the paper's scripts and tools that are no flags here
    "--work_dir": Instead(names_run=True),
    "--model_path": Instead("--load_pretrained {}", names_run=True),
    "--img_folder": Instead("--exp toco_coco_cvpr23 data.root={}"),
    "--label_folder": Instead(reason="masks are found in the data set's folder; data.mask names another place"),
    "--list_folder": Instead(reason="lists are found by their names"),
    "--spg": Instead(
        "train.batch_size=N", reason="--spg is images per process; N is its product with their number", is_answered=True
    ),
    "--pooling": Instead(reason="it has no effect in the paper's code, which pools by the maximum"),
    "--pretrained": Instead(
        reason="every value of it means true in the paper's code; model.pretrained=none means false"
    ),
    "--num_classes": Instead(reason="the data set tells the number of classes"),
    "--ignore_index": Instead(only=("255",), reason="255 is ignored"),
    "--optimizer": Instead(only=("PolyWarmupAdamW",), reason="AdamW with warm-up and poly is the optimiser"),
    "--save_ckpt": Instead(takes=0, reason="weights are always saved"),
    "--backend": Instead(reason="NCCL is used on GPUs, gloo on CPUs"),
}


def window_size(height: int, width: int, crop_size: int, crops: int = CROPS) -> tuple[int, int]:
    """Height and width of the window of positions that a local crop's first pixel can have.

    Raises:
        UserError: there are fewer than ``crops`` positions.
    """
    window = height - 2 * (crop_size // 2), width - 2 * (crop_size // 2)
    if min(window) < 1 or window[0] * window[1] < crops:
        raise UserError(
            f"an image of {height} x {width} pixels has no room for {crops} different local crops of {crop_size} x "
            f"{crop_size}: use larger images or smaller crops"
        )
    return window


def check_group(size: int, images: int) -> None:
    """Checks the groups of the losses against a micro-batch.

    Raises:
        UserError: it does not divide into groups of ``size`` images.
    """
    if images % size:
        raise UserError(
            f"loss.group={size} does not divide the micro-batch of {images} images "
            "(train.batch_size / train.accumulation)"
        )


@dataclass
class ToCoViewConfig:
    """The random views of a training image."""

    crop_size: int = option(448, "Side of the global views, in pixels.", flag="--crop_size", rule=at_least(1))
    local_size: int = option(96, "Side of the local crops, in pixels.", flag="--local_crop_size", rule=at_least(1))
    local_crops: int = option(CROPS, "Local crops of an image.", rule=at_least(1))
    scale: list[float] = option(
        [0.5, 2.0], "Smallest and largest factor that an image is scaled by before it is cropped.",
        rule=pair(ABOVE_ZERO),
    )  # fmt: skip
    paired: bool = option(
        False,
        "Flip the main image, the source of the local crops and the box together; the reference flips the two images "
        "by separate draws and never the box, so a region may be looked up mirrored.",
    )

    def check(self) -> None:
        """Checks the local crops against the view that they are cut from.

        Raises:
            UserError: as `window_size`.
        """
        window_size(self.crop_size, self.crop_size, self.local_size, self.local_crops)


@dataclass
class ToCoModelConfig(ViTConfig):
    """The network; ``img_size`` only sets the grid of the position embedding, which is resized for every image."""

    arch: str = option(
        "deit_base_patch16_224", "Architecture; its ImageNet weights fit if no other field changes it.",
        flag="--backbone", rule=KNOWN_ARCH,
    )  # fmt: skip
    aux_layer: int = option(
        -3,
        "Block (Python index) that feeds the auxiliary classifier; not the last.",
        flag="--aux_layer",
        rule=between(-256, 255),
    )
    decoder_dim: int = option(512, "Width of the segmentation decoder.", rule=at_least(1))
    proj_dim: int = option(2048, "Width of the hidden layers of the projection heads.", rule=at_least(1))

    def check(self) -> None:
        """Checks sizes and blocks.

        Raises:
            UserError: as `ViTConfig.check` and `aux_block`.
        """
        super().check()
        self.aux_block()

    def aux_block(self) -> int:
        """Number of the block (from 0) that feeds the auxiliary classifier.

        Raises:
            UserError: it does not exist, or is the last.
        """
        _, depth, _ = self.dimensions()
        if not -depth <= self.aux_layer < depth or self.aux_layer % depth == depth - 1:
            raise UserError(
                f"model.aux_layer={self.aux_layer} is no block before the last: the network has {depth} blocks"
            )
        return self.aux_layer % depth


@dataclass
class LossConfig:
    """The losses, and the steps (from 0) in which they count (paper symbols: docs/toco.md)."""

    ptc: float = option(0.2, "Weight of patch token contrast.", flag="--w_ptc", rule=at_least(0))
    ctc: float = option(0.5, "Weight of class token contrast.", flag="--w_ctc", rule=at_least(0))
    seg: float = option(0.1, "Weight of the segmentation loss.", flag="--w_seg", rule=at_least(0))
    reg: float = option(0.05, "Weight of the energy loss.", flag="--w_reg", rule=at_least(0))
    contrast_after: int = option(
        -1, "Both contrasts count in the steps after this one; -1: in all steps.", rule=at_least(-1)
    )
    seg_after: int = option(2000, "Segmentation and energy loss count in the steps after this one.", rule=at_least(-1))
    aux_cam_until: int = option(-1, "Last step whose targets come from the auxiliary CAM; -1: none.", rule=at_least(-1))
    temperature: float = option(0.5, "tau of class token contrast.", flag="--temp", rule=ABOVE_ZERO)
    momentum: float = option(
        0.9, "Share of itself that the teacher head keeps in a step.", flag="--momentum", rule=FRACTION
    )
    cam_scales: list[float] = option(
        [1.0, 0.5, 1.5], "Image scales of the CAMs that targets are made from.", flag="--cam_scales", rule=SCALES
    )
    group: int = option(
        2, "Images over which pairs and pixels are counted: 2 as on the authors' GPUs; 0: the whole micro-batch.",
        flag="--loss_group", rule=at_least(0),
    )  # fmt: skip
    compute_inactive: bool = option(False, "Also compute and log losses that do not count yet, as the reference does.")

    def contrasts(self, step: int) -> bool:
        """Whether the contrasts count in a step."""
        return step > self.contrast_after

    def segments(self, step: int) -> bool:
        """Whether segmentation and energy loss count in a step."""
        return step > self.seg_after


@dataclass
class LabelConfig:
    """The label maps that are made from CAMs (paper: beta_h, beta_l)."""

    high: float = option(0.7, "CAM values above this are foreground.", flag="--high_thre", rule=FRACTION)
    low: float = option(
        0.25, "CAM values up to this are background; values from here to high are uncertain.", flag="--low_thre",
        rule=FRACTION,
    )  # fmt: skip
    bkg: float = option(
        0.5, "CAM values up to this are background where nothing is uncertain (validation).", flag="--bkg_thre",
        rule=FRACTION,
    )  # fmt: skip
    par_iterations: int = option(ITERATIONS, "Steps of pixel-adaptive refinement.", rule=at_least(0))
    par_dilations: list[int] = option(
        list(DILATIONS), "Distances of the neighbours that refinement spreads to, in pixels.",
        rule=Rule("one or more numbers, none below 1", lambda values: bool(values) and min(values) >= 1),
    )  # fmt: skip
    scale_box: bool = option(
        False,
        "Scale the box of the unpadded image to the patch grid; the reference takes its pixels for patches, so that an "
        "image whose box begins after the first patches has no pairs.",
    )

    def check(self) -> None:
        """Checks the order of the values.

        Raises:
            UserError: background lies above foreground.
        """
        if self.low > self.high:
            raise UserError(f"labels.low={self.low} must not be above labels.high={self.high}")


@dataclass
class EnergyConfig:
    """The dense-CRF energy loss."""

    weight: float = option(1e-7, "Factor of the energy itself, besides its weight among the losses.", rule=at_least(0))
    sigma_rgb: float = option(15.0, "Colour difference (of 255) over which pixels are compared.", rule=ABOVE_ZERO)
    sigma_xy: float = option(100.0, "Distance in input pixels over which pixels are compared.", rule=ABOVE_ZERO)
    scale: float = option(
        0.5, "Size at which the energy is computed, as a share of the input's size.",
        rule=Rule("above 0, at most 1", lambda value: 0 < value <= 1),
    )  # fmt: skip


@dataclass
class ToCoOptimConfig:
    """AdamW with a poly schedule; nothing is scaled with the batch."""

    lr: float = option(6e-5, "Learning rate of the encoder.", flag="--lr", rule=at_least(0))
    head_scale: float = option(10.0, "Learning rate of all heads, relative to the encoder's.", rule=at_least(0))
    layer_decay: float = option(
        1.0, "Factor of the learning rate from each layer of the encoder to the one before it.", rule=LAYER_DECAY
    )
    warmup_steps: int = option(
        1500,
        "Steps of linear warm-up; the poly schedule is not shifted by it.",
        flag="--warmup_iters",
        rule=at_least(0),
    )
    warmup_ratio: float = option(
        1e-6, "Start of the warm-up, relative to the learning rate.", flag="--warmup_lr", rule=at_least(0)
    )
    power: float = option(0.9, "Exponent of the poly schedule.", flag="--power", rule=at_least(0))
    weight_decay: float = option(
        1e-2, "Weight decay of all parameters, biases and norms included.", flag="--wt_decay", rule=at_least(0)
    )
    betas: list[float] = option([0.9, 0.999], "AdamW's betas.", rule=numbers(2, BELOW_ONE))
    eps: float = option(1e-8, "AdamW's epsilon.", rule=at_least(0))

    def rate(self, position: Position, total: int) -> float:
        """The encoder's learning rate in the next step of ``total``: linear warm-up, then poly."""
        step = position.total_steps
        if step < self.warmup_steps:
            return self.lr * (1 - (1 - step / self.warmup_steps) * (1 - self.warmup_ratio))
        return self.lr * poly(step, total, self.power)


@dataclass
class ToCoCourseConfig(StepCourseConfig):
    """The course of the training."""

    image_list: str = option(
        "train_aug", "Training images: a list of the data set or a file.", flag=("--train_list", "--train_set")
    )
    max_steps: int = option(
        0, "Steps after which the training ends; 0: no limit.", flag="--max_iters", rule=at_least(0)
    )
    print_freq: int = option(
        60, "Steps between two lines of the log.", flag=("--print_freq", "--log_iters"), rule=at_least(1)
    )
    val_limit: int = option(0, "Number of the list's first images to validate on; 0: all.", rule=at_least(0))
    val_size: int = option(448, "Side of the square that images are brought to for validation.", rule=at_least(1))
    val_batch: int = option(8, "Images per forward pass in validation.", rule=at_least(1))


@dataclass
class ToCoInferConfig(InferConfig):
    """Inference of seeds (infer_cam.py) and, in the section ``segment``, of masks (infer_seg.py)."""

    scales: list[float] = option(
        [1.0, 0.5, 1.5], "Image scales whose CAMs are summed; 1 is always one of them.", rule=SCALES
    )
    flip: bool = option(True, "Whether the mirror image takes part: the larger of both values counts.")
    seed_map: str = option(
        "cam",
        "Map that becomes the seed: cam, cam_aux (auxiliary classifier) or seg (probabilities of the segmentation).",
        choices=SEED_MAPS,
    )
    cam_size: int = option(
        448, "Side of the square that images are brought to for CAMs; 0: their own size.", rule=at_least(0)
    )
    seg_scales: list[float] = option(
        [1.0, 1.25, 1.5], "Image scales whose logits are summed for seed_map=seg, at the images' own size.", rule=SCALES
    )
    segment: SegmentConfig = section(SegmentConfig)

    def check(self) -> None:
        """Checks the tiles.

        Raises:
            UserError: they are set for CAMs, which see the image as a square.
        """
        if self.tile:
            raise UserError(
                f"infer.tile={self.tile}: ToCo's CAMs see each image as a square of infer.cam_size, whatever its size, "
                "and take no tiles; infer.segment.tile is that of its masks"
            )

    def settings(self) -> dict[str, Any]:
        """As `InferConfig.settings`."""
        views = {"cam_size": self.cam_size, "seg_scales": list(self.seg_scales)}
        return {**super().settings(), **views, "seed_map": self.seed_map}


@dataclass
class ToCoConfig:
    """All sections of a ToCo experiment."""

    method: ClassVar[str] = "ToCo"
    paper: ClassVar[PaperFlags] = PAPER
    data: DataConfig = section(DataConfig)
    views: ToCoViewConfig = section(ToCoViewConfig)
    model: ToCoModelConfig = section(ToCoModelConfig, drop_path=0.0)
    loss: LossConfig = section(LossConfig)
    labels: LabelConfig = section(LabelConfig)
    energy: EnergyConfig = section(EnergyConfig)
    optim: ToCoOptimConfig = section(ToCoOptimConfig)
    train: ToCoCourseConfig = section(
        ToCoCourseConfig, epochs=1_000_000, max_steps=20_000, batch_size=4, print_freq=200, save_steps=1000,
        eval_steps=2000, keep_steps=2000,
    )  # fmt: skip
    infer: ToCoInferConfig = section(ToCoInferConfig)
    eval: EvalConfig = section(EvalConfig, fixed_threshold=0.5)
    runtime: RuntimeConfig = section(RuntimeConfig)

    def check(self) -> None:
        """Checks the losses against the batch.

        Raises:
            UserError: as `check_group`.
        """
        images = self.train.batch_size // self.train.accumulation
        check_group(self.loss.group or images, images)
