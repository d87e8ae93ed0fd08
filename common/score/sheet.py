"""Contact sheets of a run's predictions: the choice of images, the score of each, the lines above."""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from common.data.classes import IGNORE_LABEL
from common.data.dataset import ImageSet
from common.run.errors import UserError
from common.run.folder import RunFolder
from common.run.progress import progress
from common.score.read import read_score

CHOICES = {
    "spread": "evenly spread over the list", "first": "the first of the list", "worst": "of the lowest IoU",
    "best": "of the highest IoU",
}  # fmt: skip
Panels = list[tuple[str, np.ndarray]]


def image_iou(prediction: np.ndarray, mask: np.ndarray) -> float:
    """Mean IoU, percent, of one image over the labels that its prediction or its true mask has.

    Args:
        prediction: labels (H, W).
        mask: true labels (H, W); ignored pixels do not count.
    """
    valid = mask != IGNORE_LABEL
    predicted, true = prediction[valid].astype(np.int64), mask[valid].astype(np.int64)
    labels = np.union1d(predicted, true)
    ious = [np.sum((predicted == k) & (true == k)) / np.sum((predicted == k) | (true == k)) for k in labels]
    return 100 * float(np.mean(ious)) if ious else 100.0


def score_of(prediction: np.ndarray, images: ImageSet, index: int) -> str:
    """The score of an image as part of a caption; empty if it has no true mask."""
    if not images.mask_path(images.ids[index]).is_file():
        return ""
    mask = images.load_mask(index)
    return f", IoU {image_iou(prediction, mask):.0f}" if mask.shape == prediction.shape else ", of another size"


def chosen_images(
    images: ImageSet, count: int, choice: str, predict: Callable[[int], np.ndarray], threads: int = 4
) -> list[int]:
    """Indices of the images of a sheet, in the order in which they are shown.

    Args:
        choice: one of `CHOICES`.
        predict: gives an image's predicted labels (H, W) by index.

    Raises:
        UserError: fewer than one image, or scores are needed and there are no true masks.
    """
    if count < 1:
        raise UserError(f"--count {count}: at least one image")
    unique = images.unique()
    if choice == "first":
        return unique[:count]
    if choice == "spread":
        return [unique[i] for i in np.linspace(0, len(unique) - 1, min(count, len(unique))).round().astype(int)]
    scored = [index for index in unique if images.mask_path(images.ids[index]).is_file()]
    if not scored:
        raise UserError(f"--images {choice} needs true masks, and the list {images.list_name!r} has none")
    with ThreadPoolExecutor(threads) as pool:
        made = pool.map(lambda index: image_iou(predict(index), images.load_mask(index)), scored)
        ious = dict(zip(scored, progress(made, "IoU", total=len(scored)), strict=True))
    return sorted(scored, key=lambda index: (ious[index] if choice == "worst" else -ious[index], index))[:count]


def of_weights(checkpoint: str) -> str:
    """The weights of a stamp in words: the epoch or iteration in the file's name, else the file; empty for none."""
    name = Path(checkpoint).name
    number = re.search(r"\d+", name)
    unit = "iteration" if "iter" in name else "epoch"
    return f"{unit} {int(number[0])}" if number and not Path(name).stem.startswith(("best", "last")) else name


def score_line(title: str, file: Path, list_name: str, source: Path) -> str:
    """A folder's score on a list, from an evaluation's JSON; says so where there is none of both."""
    try:
        content = read_score(file, ["list", "source", "images"])
        point = content["best"]
        is_same = content["list"] == list_name and Path(content["source"]).resolve() == source.resolve()
        score = f"{point['mIoU']:.2f} mIoU of {content['images']} images"
    except (UserError, ValueError):  # ValueError: a NUL in the path
        is_same = False
    return f"{title}: {score}" if is_same else f"{title}: not scored on {list_name} yet"


def header(
    run: RunFolder, method: str, weights: str, images: ImageSet, choice: str, scores: Sequence[str]
) -> list[str]:
    """The lines above a sheet: run, method, weights; list and choice of the images; scores."""
    first = ", ".join(part for part in (f"run {run.name}", method, weights) if part)
    return [first, f"list {Path(images.list_name).stem}, {len(images.unique())} images: {CHOICES[choice]}", *scores]
