"""Scores within training and inference scripts: of predictions in memory, or of a folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.data.dataset import ImageSet, LabelledImages, class_names
from common.data.layout import DataConfig
from common.run.errors import UserError
from common.run.fingerprint import digest
from common.run.folder import RunFolder
from common.run.processes import Processes, say_once
from common.score.evaluate import evaluate
from common.score.files import FilePredictions, MaskFiles, Prediction
from common.score.mask_meaning import NO_LABELS, ImageLabels, labels_by_id
from common.score.options import EvalConfig
from common.score.origin import score_fingerprint
from common.score.result import Evaluation


@dataclass(frozen=True)
class NotScored:
    """The reason for a missing score; as text, the line for the user."""

    reason: str

    def __str__(self) -> str:
        return f"not scored: {self.reason}"


def score_in_memory(
    predictions: Iterator[tuple[str, Prediction]], images: ImageSet, config: EvalConfig, task: str,
    processes: Processes, source: str,
) -> Evaluation:  # fmt: skip
    """Scores pairs of image id and prediction, one for each image of this process's share of an image set.

    Raises:
        UnusablePredictions: as `evaluate`.
    """
    ids, masks = [images.ids[index] for index in images.unique()], MaskFiles(images.config, images.list_name)
    result = evaluate(
        ids, predictions, masks, images.classes, config, task, images.list_name, source, processes=processes,
        image_labels=labels_by_id(images.ids, images.labels),
    )  # fmt: skip
    result.fingerprint = {"ids": digest(*ids), "eval": dict(vars(config))}
    for finding in result.findings:
        say_once(f"warning: {finding}")
    return result


def score_folder(
    folder: Path, task: str, data: DataConfig, list_name: str, config: EvalConfig, processes: Processes,
    num_workers: int,
) -> Evaluation | NotScored:  # fmt: skip
    """Scores the seeds (task ``cam``) or masks (``png``) in a folder.

    Without a file for every image, or without true masks, the reason is returned instead.

    Raises:
        UserError: the folder holds files of another kind.
        UnusablePredictions: as `evaluate`.
    """
    masks, predictions = MaskFiles(data, list_name), FilePredictions(folder, task)
    predictions.require_kind(masks)
    missing = sum(predictions.find(image_id) is None for image_id in masks.ids)
    if missing:
        kind = "seed" if task == "cam" else "mask"
        return NotScored(f"{missing} of the {len(masks.ids)} images of {list_name!r} have no {kind} in {folder}")
    if not any(masks.path(image_id).is_file() for image_id in masks.ids):
        return NotScored(f"no masks of {list_name!r}, such as {masks.path(masks.ids[0])}")
    result = evaluate(
        masks.ids, predictions, masks, class_names(data), config, task, list_name, str(folder),
        processes=processes, num_workers=num_workers, image_labels=known_labels(data, list_name),
    )  # fmt: skip
    if processes.is_main:
        result.fingerprint = score_fingerprint(masks, predictions, config)
    return result


def known_labels(data: DataConfig, list_name: str) -> ImageLabels:
    """The image labels of a list, where the data set has them; a score needs none."""
    try:
        images = LabelledImages(data, list_name, require_images=False)
    except UserError:
        return NO_LABELS
    return labels_by_id(images.ids, images.labels)


def report(result: Evaluation | NotScored, run: RunFolder, stem: str, processes: Processes) -> None:
    """Prints a score and writes it into the run folder as ``<stem>.*``; or prints the reason for none."""
    if isinstance(result, NotScored) or not processes.is_main:
        processes.say(result)
        return
    result.write(run.path, stem)
    for warning in result.warnings():
        print(f"warning: {warning}")
    images = f"{result.images} images of {result.list_name!r}"
    file = run.path / stem
    if result.thresholds is None:
        print(f"{result.source}: {result.best} over the {images}; per class: {file}.json, .csv")
        return
    print(f"seeds of the {images}:")
    for name, point in result.points().items():
        print(f"  {name.replace('_', ' '):>15}: {point}")
    print(f"  thresholds were tuned on these images; per-class scores and the curve: {file}.json, .csv, .png")
