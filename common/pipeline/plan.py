"""What a training will cost: operations, memory, time on a GPU, disk; found without a GPU, data or weights."""

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.data.lists import find_list, read_list
from common.pipeline.builders import PLANNED, named
from common.run.config import config_path, load_config
from common.run.errors import UserError
from common.run.method import method_of
from common.run.similar import did_you_mean

if TYPE_CHECKING:
    from common.train.cost import StepCost

GB = 1e9
CONTEXT = 0.6 * GB  # CUDA's own memory in a process
SPARE = 0.9  # share of the remaining memory that a plan uses: the allocator loses some between its blocks
IMAGE = {"voc12": (375, 500, 1.5), "coco14": (480, 640, 2.9)}  # typical height, width, classes of an image


@dataclass(frozen=True)
class Gpu:
    """A GPU: memory in GB, and peak TFLOP/s of dense products by ``runtime.precision``."""

    name: str
    memory: float
    tflops: dict[str, float]

    def peak(self, precision: str) -> float:
        """FLOP/s at a precision."""
        return 1e12 * self.tflops[precision]


def _gpu(name: str, memory: float, fp32: float, tf32: float, bf16: float) -> Gpu:
    return Gpu(name, memory, {"fp32": fp32, "tf32": tf32, "bf16": bf16, "fp16": bf16})


# The makers' data sheets: dense products, accumulated in float32.
GPUS = {
    "3090": _gpu("RTX 3090", 24, 35.6, 35.6, 71),
    "4090": _gpu("RTX 4090", 24, 82.6, 82.6, 165),
    "a100": _gpu("A100 80 GB", 80, 19.5, 156, 312),
    "h100": _gpu("H100 SXM", 80, 67, 495, 989),
}


def gpu(text: str) -> Gpu:
    """A GPU by its name in `GPUS`, or by ``GB,TFLOPS`` for any other.

    Raises:
        UserError: it is neither.
    """
    if text.lower() in GPUS:
        return GPUS[text.lower()]
    try:
        memory, tflops = (float(part) for part in text.split(","))
    except ValueError:
        memory = tflops = math.nan
    if not (0 < memory < math.inf and 0 < tflops < math.inf):
        hint = did_you_mean(text.lower(), GPUS)
        raise UserError(
            f"--gpu {text}: neither one of {', '.join(GPUS)} nor memory and speed as GB,TFLOPS (for example 48,150)."
            f"{hint}"
        )
    return _gpu(f"{memory:g} GB, {tflops:g} TFLOP/s", memory, tflops, tflops, tflops)


@dataclass(frozen=True)
class Course:
    """The length of a training, and the files that it leaves."""

    images: int
    classes: int
    steps: int
    weight_files: int


@dataclass(frozen=True)
class Fit:
    """A training on a GPU: the largest micro-batch that fits, its memory in bytes, and seconds a step."""

    micro_batch: int
    accumulation: int
    memory: float
    seconds: float


class Plan:
    """A training's costs; the step is planned anew for each micro-batch that is asked for.

    Attributes:
        config: the resolved configuration.
        course: length and files.
    """

    def __init__(self, exp: str, overrides: Sequence[str], images: int = 0, classes: int = 0) -> None:
        """Reads the experiment.

        Args:
            exp: as ``--exp`` of the trainings.
            images: number of training images; 0: of the list, in the data set or shipped.
            classes: number of classes; 0: of the data set.

        Raises:
            UserError: there is no such experiment, it has no training that can be planned, or the list is missing.
        """
        self.exp = exp
        self.overrides = list(overrides)
        self._path = config_path(exp)
        self.method = method_of(self._path)
        if self.method not in PLANNED:
            raise UserError(
                f"{self._path} is an experiment of {self.method or 'no named method'}; planned are those of: "
                f"{', '.join(PLANNED)}"
            )
        self.config = self._config([])
        self.course = self._course(images, classes)
        self._costs: dict[int, StepCost] = {}

    def cost(self, micro_batch: int) -> "StepCost":
        """The cost of a micro-batch."""
        if micro_batch not in self._costs:
            from common.train.cost import planned_cost

            step_work = named(PLANNED[self.method][1])
            config = self._config([])  # a step may change its own
            work = step_work(config, self.course.classes, micro_batch)
            self._costs[micro_batch] = planned_cost(work, config.runtime.precision)
        return self._costs[micro_batch]

    def fit(self, card: Gpu, share: float) -> Fit | None:
        """The training on a GPU with as few micro-batches as its memory allows; None if a single image is too much.

        Args:
            share: share of the GPU's peak that the training reaches.
        """
        room = SPARE * (card.memory * GB - CONTEXT)
        sizes = self.micro_batches()
        first = bisect.bisect_left(sizes, True, key=lambda size: self.cost(size).memory <= room)
        if first == len(sizes):
            return None
        cost = self.cost(sizes[first])
        parts = self.config.train.batch_size // sizes[first]
        peak = card.peak(self.config.runtime.precision)
        return Fit(sizes[first], parts, cost.memory + CONTEXT, parts * cost.flops / (share * peak))

    def micro_batches(self) -> list[int]:
        """Micro-batches that the configuration allows, the largest first."""
        batch = self.config.train.batch_size
        return [batch // parts for parts in range(1, batch + 1) if batch % parts == 0 and self._allows(parts)]

    def checkpoint_bytes(self) -> float:
        """Bytes of a run's checkpoints: the last with the optimiser's state, the best, and all that are kept."""
        cost = self.cost(self.micro_batches()[-1])
        trained = cost.weights
        return trained + cost.optimizer + trained * (1 + self.course.weight_files)

    def seed_bytes(self) -> float:
        """Bytes of the seeds of the training images as float32 files of a typical image's size."""
        height, width, classes = IMAGE.get(self.config.data.dataset, IMAGE["voc12"])
        return 4.0 * height * width * classes * self.course.images

    def _allows(self, parts: int) -> bool:
        try:
            self._config([f"train.accumulation={parts}"])
        except UserError:
            return False
        return True

    def _config(self, more: Iterable[str]) -> Any:
        return load_config(named(PLANNED[self.method][0]), self._path, [*self.overrides, *more])

    def _course(self, images: int, classes: int) -> Course:
        data = self.config.data
        train = self.config.train
        if not images:
            try:
                images = len(set(read_list(find_list(train.image_list, data.dataset, data.root), data.dataset)))
            except UserError as error:
                raise UserError(f"{error} Or give the number of training images: --images N") from error
        if not classes:
            from common.data.dataset import class_names

            try:
                classes = len(class_names(data))
            except UserError as error:
                raise UserError(f"{error}. Or give the number of classes: --classes N") from error
        if images < train.batch_size:
            raise UserError(f"train.batch_size={train.batch_size}, but there are only {images} training images")
        steps = train.length(images // train.batch_size)
        keep_steps = getattr(train, "keep_steps", None)
        epochs = min(train.epochs, steps // (images // train.batch_size))
        kept = epochs // train.save_epochs if keep_steps is None else steps // keep_steps if keep_steps else 1
        return Course(images, classes, steps, kept)
