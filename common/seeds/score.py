"""Scores of seeds that are in memory: within a training, or by an inference that writes none."""

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np

from common.data.dataset import LabelledImages
from common.run.device import Runtime
from common.run.log import RunLog
from common.score.files import Prediction
from common.score.options import EvalConfig
from common.score.report import score_in_memory
from common.score.result import Evaluation
from common.seeds.infer import MapsOf, find_seeds, known_labels
from common.seeds.options import InferConfig
from common.seeds.thresholds import tuned_entry


class Validation(NamedTuple):
    """The result of a validation.

    Attributes:
        miou: best mIoU of the seeds in percent.
        tuned: thresholds found on these images, see `common.seeds.thresholds`; None from a method without class logits.
    """

    miou: float
    tuned: dict[str, Any] | None


def score_seeds(
    maps_of: MapsOf, images: LabelledImages, infer: InferConfig, config: EvalConfig, runtime: Runtime,
    logits: dict[int, np.ndarray] | None = None,
) -> Evaluation:  # fmt: skip
    """Scores the seeds of an image set without writing them; the work is shared by all processes.

    Args:
        logits: takes the class logits (C,) of this process's share, by the image's index.

    Raises:
        UnusablePredictions: masks are missing or do not fit their images.
    """

    def seeds() -> Iterator[tuple[str, Prediction]]:
        for found in find_seeds(maps_of, images, known_labels(images), infer, runtime, title="scoring seeds"):
            if logits is not None and found.logits is not None:
                logits[found.index] = found.logits
            yield images.ids[found.index], found.seed

    return score_in_memory(seeds(), images, config, "cam", runtime.processes, "seeds in memory")


def validate(
    maps_of: MapsOf, images: LabelledImages, infer: InferConfig, config: EvalConfig, runtime: Runtime, log: RunLog,
    step: int, epoch: int,
) -> Validation:  # fmt: skip
    """Scores seeds, and logs the result.

    Args:
        step: steps done since the start of the run.
        epoch: current epoch, from 0.
    """
    result, tuned = tune(maps_of, images, infer, config, runtime)
    best, fixed = result.best, result.points()["fixed"]
    threshold = cast(float, best.threshold)  # the task cam has thresholds
    values = {"val_mIoU": best.miou, "val_threshold": threshold, "val_mIoU_fixed": fixed.miou}
    classes = ""
    if tuned and tuned["mean_f1"] is not None:
        values["val_class_F1"] = 100 * tuned["mean_f1"]
        classes = f"; classes by their scores: F1 {values['val_class_F1']:.2f}"
    log.numbers(step, values, kind="validation", epoch=epoch)
    log.say(f"epoch {epoch}: seeds of {images.list_name!r}: {best} (tuned on these images), {fixed}{classes}")
    return Validation(best.miou, tuned)


def tune(
    maps_of: MapsOf, images: LabelledImages, infer: InferConfig, config: EvalConfig, runtime: Runtime
) -> tuple[Evaluation, dict[str, Any] | None]:
    """Scores seeds, and finds the thresholds of class scores and background; collective.

    Returns:
        The scores; the thresholds as `Validation.tuned`.

    Raises:
        UnusablePredictions: as `score_seeds`.
    """
    logits: dict[int, np.ndarray] = {}
    result = score_seeds(maps_of, images, infer, config, runtime, logits)
    entry = _entry(logits, images, runtime)
    if entry is None:
        return result, None
    best = {"threshold": result.best.threshold, "list": images.list_name, "mIoU": round(result.best.miou, 4)}
    return result, {**entry, "background": best}


def tune_classes(
    maps_of: MapsOf, images: LabelledImages, infer: InferConfig, runtime: Runtime
) -> dict[str, Any] | None:
    """As `tune`, for images without masks: the thresholds of class scores alone."""
    found = find_seeds(maps_of, images, known_labels(images), infer, runtime, title="class scores")
    return _entry({one.index: one.logits for one in found if one.logits is not None}, images, runtime)


def _entry(own: dict[int, np.ndarray], images: LabelledImages, runtime: Runtime) -> dict[str, Any] | None:
    """The thresholds of class logits of all processes; None without logits."""
    logits = {index: values for part in runtime.processes.gather_objects(own) for index, values in part.items()}
    return tuned_entry(logits, images.labels, images.classes, images.list_name) if logits else None
