"""Scores of seeds within a training or inference script: in memory, or from the folder just written."""

from pathlib import Path

from common.checkpoint import Position
from common.data.dataset import DataConfig, ImageSet
from common.errors import UserError, preview
from common.evaluate import EvalConfig, Evaluation, FilePredictions, MaskFiles, evaluate, summed
from common.infer import InferConfig, MapsOf, infer_seeds
from common.log import RunLog
from common.metrics import SweepCounts
from common.run import RunFolder
from common.runtime import Runtime
from common.seeds import seed_path


def scored_images(data: DataConfig, list_name: str, config: EvalConfig, with_labels: bool = True) -> ImageSet:
    """The images of a list that seeds or masks are to be scored on.

    Args:
        with_labels: whether image labels are needed; those of masks are not.

    Raises:
        UserError: as `ImageSet`; or masks are missing or the thresholds unusable, which is better known before a
            training than in the middle.
    """
    config.grid()
    images = ImageSet(data, list_name, with_labels)
    missing = _missing_masks(images)
    if missing:
        raise _masks_needed(images, missing)
    return images


def has_masks(images: ImageSet) -> bool:
    """Whether predictions for the images can be scored.

    Raises:
        UserError: masks of only some of them are there.
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
    maps_of: MapsOf, images: ImageSet, infer: InferConfig, config: EvalConfig, runtime: Runtime
) -> Evaluation:
    """Scores the seeds of an image set without writing them; the work is shared by all processes.

    Raises:
        UserError: a mask is missing or does not fit its image.
    """
    counts = SweepCounts(len(images.classes) + 1, config.grid())
    masks = MaskFiles(images.config, images.list_name)
    for index, seed in infer_seeds(maps_of, images, infer, runtime, title="scoring seeds"):
        try:
            counts.add(seed, masks(images.ids[index]))
        except UserError as error:
            raise UserError(f"the seed of {images.ids[index]} cannot be scored: {error}") from error
    counts = summed(counts, runtime.processes)
    return Evaluation("cam", images.classes, counts, config, len(set(images.ids)), images.list_name, "seeds in memory")


def validate(
    maps_of: MapsOf,
    images: ImageSet,
    infer: InferConfig,
    config: EvalConfig,
    runtime: Runtime,
    log: RunLog,
    position: Position,
    epoch: int,
) -> float:
    """Scores seeds, logs the result and returns the best mIoU in percent."""
    result = score_seeds(maps_of, images, infer, config, runtime)
    values = {"mIoU": result.best.miou, "threshold": result.best.threshold, "mIoU_fixed": result.fixed.miou}
    log.numbers(
        position.total_steps, {f"val_{name}": value for name, value in values.items()}, kind="validation", epoch=epoch
    )
    log.say(
        f"epoch {epoch}: seeds of {images.list_name!r}: {result.best.miou:.2f} mIoU at threshold "
        f"{result.best.threshold:.2f} (tuned on these "
        f"images), {result.fixed.miou:.2f} at {result.fixed.threshold:.2f}"
    )
    return result.best.miou


def score_folder(
    folder: Path, images: ImageSet, list_name: str, config: EvalConfig, runtime: Runtime, num_workers: int
) -> Evaluation | str:
    """Scores the seed files of a list, or says why that is not possible (other images, no masks).

    Args:
        images: the set that the seeds were written for.
    """
    data: DataConfig = images.config
    masks = MaskFiles(data, list_name)
    without = sum(seed_path(folder, image_id) is None for image_id in masks.ids)
    if without:
        return f"not scored: {without} of the {len(masks.ids)} images of {list_name!r} have no seed in {folder}"
    if not any(masks.path(image_id).is_file() for image_id in masks.ids):
        return f"not scored: no masks of {list_name!r}, such as {masks.path(masks.ids[0])}"
    predictions = FilePredictions(folder, "cam")
    return evaluate(
        masks.ids, predictions, masks, images.classes, config, list_name=list_name, source=str(folder),
        processes=runtime.processes, num_workers=num_workers,
    )  # fmt: skip


def report_seeds(result: Evaluation | str, run: RunFolder, runtime: Runtime) -> None:
    """Prints a score and writes it into the run folder as ``eval_cam.*``."""
    if not runtime.processes.is_main:
        return
    if isinstance(result, str):
        print(result)
        return
    result.write(run.path, "eval_cam")
    print(f"seeds of {result.list_name!r} ({result.images} images):")
    for name, point in result.points().items():
        print(f"  {name.replace('_', ' '):>15}: {point.miou:.2f} mIoU at threshold {point.threshold:.2f}")
    print(
        f"  thresholds were tuned on these images; per-class scores and the curve: {run.path}/eval_cam.json, .csv, .png"
    )
