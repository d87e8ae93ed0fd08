"""Scores of seeds that are in memory: within a training, or by an inference that writes none."""

from collections.abc import Iterator
from typing import cast

from common.data.dataset import LabelledImages
from common.run.device import Runtime
from common.run.log import RunLog
from common.score.evaluate import Prediction
from common.score.options import EvalConfig
from common.score.report import score_in_memory
from common.score.result import Evaluation
from common.seeds.infer import MapsOf, infer_seeds
from common.seeds.options import InferConfig


def score_seeds(
    maps_of: MapsOf, images: LabelledImages, infer: InferConfig, config: EvalConfig, runtime: Runtime
) -> Evaluation:
    """Scores the seeds of an image set without writing them; the work is shared by all processes.

    Raises:
        UnusablePredictions: masks are missing or do not fit their images.
    """

    def seeds() -> Iterator[tuple[str, Prediction]]:
        for index, seed in infer_seeds(maps_of, images, infer, runtime, title="scoring seeds"):
            yield images.ids[index], seed

    return score_in_memory(seeds(), images, config, "cam", runtime.processes, "seeds in memory")


def validate(
    maps_of: MapsOf, images: LabelledImages, infer: InferConfig, config: EvalConfig, runtime: Runtime, log: RunLog,
    step: int, epoch: int,
) -> float:  # fmt: skip
    """Scores seeds, logs the result and returns the best mIoU in percent.

    Args:
        step: steps done since the start of the run.
        epoch: current epoch, from 0.
    """
    result = score_seeds(maps_of, images, infer, config, runtime)
    best, fixed = result.best, result.points()["fixed"]
    threshold = cast(float, best.threshold)  # the task cam has thresholds
    values = {"val_mIoU": best.miou, "val_threshold": threshold, "val_mIoU_fixed": fixed.miou}
    log.numbers(step, values, kind="validation", epoch=epoch)
    log.say(f"epoch {epoch}: seeds of {images.list_name!r}: {best} (tuned on these images), {fixed}")
    return best.miou
