"""Scores within training and inference scripts: of predictions in memory, or of the folder just written."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from common.data.dataset import ImageSet, LabelledImages, class_names
from common.data.layout import DataConfig
from common.run.device import Runtime
from common.run.errors import UserError, preview
from common.run.folder import RunFolder
from common.run.log import RunLog
from common.run.processes import Processes
from common.score.evaluate import FilePredictions, MaskFiles, Prediction, evaluate
from common.score.result import EvalConfig, Evaluation
from common.seeds.infer import InferConfig, MapsOf, infer_seeds

Images = TypeVar("Images", bound=ImageSet)


@dataclass(frozen=True)
class NotScored:
    """Why there is no score; as text, the line for the user."""

    reason: str

    def __str__(self) -> str:
        return f"not scored: {self.reason}"


def scored_images(kind: type[Images], data: DataConfig, list_name: str, config: EvalConfig) -> Images:
    """The images of a list that seeds or masks are to be scored on.

    Args:
        kind: `LabelledImages` for seeds, `ImageSet` for masks.

    Raises:
        UserError: as ``kind``; or masks are missing or the thresholds unusable, which is better known before a
            training than in the middle.
    """
    config.grid()
    images = kind(data, list_name)
    missing = _missing_masks(images)
    if missing:
        raise _masks_needed(images, missing)
    return images


def has_masks(images: ImageSet) -> bool:
    """Whether predictions for the images can be scored.

    Raises:
        UserError: masks of only some of them exist.
    """
    missing = _missing_masks(images)
    if missing and len(missing) < len(images):
        raise _masks_needed(images, missing)
    return not missing


def _missing_masks(images: ImageSet) -> list[Path]:
    return [path for path in map(images.mask_path, images.ids) if not path.is_file()]


def _masks_needed(images: ImageSet, missing: list[Path]) -> UserError:
    return UserError(
        f"{len(missing)} of the {len(images)} masks of list {images.list_name!r} are missing: {preview(missing, 3)}. "
        f"Get them with: {images.layout.provided_by}; or score another list, or none"
    )


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


def score_in_memory(
    predictions: Iterator[tuple[str, Prediction]], images: ImageSet, config: EvalConfig, task: str,
    processes: Processes, source: str,
) -> Evaluation:  # fmt: skip
    """Scores pairs of image id and prediction, one for each image of this process's share of an image set.

    Raises:
        UnusablePredictions: as `evaluate`.
    """
    ids, masks = [images.ids[index] for index in images.unique()], MaskFiles(images.config, images.list_name)
    return evaluate(
        ids, predictions, masks, images.classes, config, task, images.list_name, source, processes=processes
    )


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


def score_folder(
    folder: Path, task: str, data: DataConfig, list_name: str, config: EvalConfig, processes: Processes,
    num_workers: int,
) -> Evaluation | NotScored:  # fmt: skip
    """Scores the seeds (task ``cam``) or masks (``png``) in a folder, or says why not: other images, no true masks.

    Raises:
        UnusablePredictions: as `evaluate`.
    """
    masks, predictions = MaskFiles(data, list_name), FilePredictions(folder, task)
    missing = sum(predictions.find(image_id) is None for image_id in masks.ids)
    if missing:
        kind = "seed" if task == "cam" else "mask"
        return NotScored(f"{missing} of the {len(masks.ids)} images of {list_name!r} have no {kind} in {folder}")
    if not any(masks.path(image_id).is_file() for image_id in masks.ids):
        return NotScored(f"no masks of {list_name!r}, such as {masks.path(masks.ids[0])}")
    return evaluate(
        masks.ids, predictions, masks, class_names(data), config, task, list_name, str(folder),
        processes=processes, num_workers=num_workers,
    )  # fmt: skip


def report(result: Evaluation | NotScored, run: RunFolder, stem: str, processes: Processes) -> None:
    """Prints a score and writes it into the run folder as ``<stem>.*``; or prints the reason for none."""
    if isinstance(result, NotScored) or not processes.is_main:
        processes.say(result)
        return
    result.write(run.path, stem)
    images, file = f"{result.images} images of {result.list_name!r}", run.path / stem
    if result.thresholds is None:
        print(f"{result.source}: {result.best} over the {images}; per class: {file}.json, .csv")
        return
    print(f"seeds of the {images}:")
    for name, point in result.points().items():
        print(f"  {name.replace('_', ' '):>15}: {point}")
    print(f"  thresholds were tuned on these images; per-class scores and the curve: {file}.json, .csv, .png")
