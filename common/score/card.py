"""The evaluation card: every score with its interval, and where the prediction is wrong.

The content goes to ``<stem>_card.json``, with ``<stem>_per_image.csv`` and the pictures ``<stem>_confusion.png`` and
``<stem>_classes.png`` beside it. docs/evaluation.md says how each number is read.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.run.errors import UserError
from common.run.files import write_json
from common.run.folder import CARD, CARD_FILES
from common.run.text import read_json_object
from common.score.average_precision import LEVELS, average_precision, class_levels
from common.score.bootstrap import Interval, draws, interval
from common.score.image_counts import CardCounts, PerImage
from common.score.means import drawn_totals, label_scores, means, plain_totals, present_labels
from common.score.per_image import read_per_image, write_per_image
from common.score.pictures import draw_classes, draw_confusion
from common.score.read import is_number
from common.score.sizes import size_scores

Content = dict[str, Any]


def point_card(counts: PerImage, confusion: np.ndarray) -> Content:
    """Means, scores of labels and recall by size, at one threshold, in percent and with intervals.

    Args:
        confusion: pixels by true (rows) and predicted label; a further column counts pixels without a prediction.
    """
    present = present_labels(counts)
    plain, drawn = plain_totals(counts), drawn_totals(counts)
    values, resampled = means(plain, present), means(drawn, present)
    of_label, of_draws = label_scores(plain), label_scores(drawn)
    return {
        "means": {name: entry(interval(float(value[0]), resampled[name])) for name, value in values.items()},
        "absent": [name for name, there in zip(counts.labels, present, strict=True) if not there],
        "classes": {
            label: {
                name: entry(interval(float(value[0, number]), of_draws[name][:, number]))
                for name, value in of_label.items()
            }
            for number, label in enumerate(counts.labels)
        },
        "sizes": {
            name: {"objects": score.objects, "largest": score.largest, "recall": entry(score.recall)}
            for name, score in size_scores(counts).items()
        },
        "confusion": confusion.tolist(),
    }


def precision_card(card: CardCounts, truth: np.ndarray, labels: list[str]) -> Content:
    """Pixel average precision of every class that has pixels, its mean over them, and PxAP.

    Args:
        truth: pixels of each label in each image, (N, K).
    """
    levels, rows = card.levels()
    keys = np.flatnonzero(truth[:, 1:].any(axis=0)).tolist()
    of_class: list[list[np.ndarray]] = []
    pooled: list[np.ndarray] = []
    for weights in itertools.chain([np.ones((1, len(truth)))], draws(len(truth))):  # the images themselves, then draws
        of_class.append([average_precision(class_levels(levels, rows, truth, key, weights)) for key in keys])
        pairs = np.zeros((len(weights), 2 * LEVELS))
        for key, own in levels.items():
            pairs += weights[:, rows[key]] @ own.reshape(-1, 2 * LEVELS).astype(np.float64)
        pooled.append(average_precision(pairs.reshape(-1, 2, LEVELS)))
    values = np.concatenate([np.reshape(part, (len(keys), -1 if keys else 0)) for part in of_class], axis=1)
    known = np.isfinite(values)
    mean = np.where(known.any(axis=0), np.where(known, values, 0).sum(axis=0), np.nan) / np.maximum(
        known.sum(axis=0), 1
    )
    return {
        "mean": _of_draws(mean if keys else np.full(1, np.nan)),
        "PxAP": _of_draws(np.concatenate(pooled)),
        "classes": {labels[key + 1]: _of_draws(own) for key, own in zip(keys, values, strict=True)},
    }


def _of_draws(values: np.ndarray) -> Content:
    """The `entry` of a score of the images themselves and of the draws, (1 + R,)."""
    return entry(interval(float(values[0]), values[1:]))


def entry(score: Interval) -> Content:
    """A score and its interval as plain containers; None where there is none."""
    value, low, high = (number if math.isfinite(number) else None for number in score)
    return {"value": value, "interval": [low, high]}


def as_text(score: Content) -> str:
    """An `entry` as text."""
    if score["value"] is None:
        return "-"
    low, high = (float("nan") if end is None else end for end in score["interval"])
    return str(Interval(score["value"], low, high))


def card_lines(content: Content) -> list[str]:
    """The means of a card's main point as lines of text, with the recall by size and what is free of thresholds."""
    point = content["points"][content["main"]]
    lines = [f"evaluation card at {content['main']}, with {content['confidence']} % intervals over images:"]
    lines += [f"  {name.replace('_', ' '):<24}{as_text(score)}" for name, score in point["means"].items()]
    for name, size in point["sizes"].items():
        lines.append(f"  {f'recall, {name} objects':<24}{as_text(size['recall'])}, {size['objects']} objects")
    if "average_precision" in content:
        lines.append(f"  {'pixel AP, mean':<24}{as_text(content['average_precision']['mean'])}")
        lines.append(f"  {'PxAP':<24}{as_text(content['average_precision']['PxAP'])}")
        lines.append(f"  {'oracle mIoU':<24}{content['oracle']['mIoU']:.2f}, a threshold for each class by the masks")
    return lines


def write_card(folder: Path, stem: str, content: Content, counts: Mapping[str, PerImage]) -> None:
    """Writes the files of a card, each atomically.

    Args:
        content: of the JSON; the pictures show its main point.
        counts: of the images, by point.
    """
    write_json(folder / f"{stem}{CARD}", content)
    write_per_image(folder / f"{stem}_per_image.csv", counts)
    point = content["main"]
    title = f"{content['source'] or content['task']}, list {content['list']}: {content['images']} images, {point}"
    labels, own = content["labels"], content["points"][point]
    draw_confusion(folder / f"{stem}_confusion.png", np.array(own["confusion"]), labels, title)
    draw_classes(folder / f"{stem}_classes.png", own["classes"], title)


def remove_card(folder: Path, stem: str) -> None:
    """Deletes the files of an earlier card, which would stand beside the scores of another evaluation."""
    for end in CARD_FILES:
        (folder / f"{stem}{end}").unlink(missing_ok=True)


def read_card(folder: Path, stem: str) -> Content:
    """The content of a card.

    Raises:
        UserError: there is none, or the file is damaged.
    """
    path = folder / f"{stem}{CARD}"
    if not path.is_file():
        raise UserError(f"no {path}: evaluation.py writes it with --card")
    try:
        content = read_json_object(path, "the card")
        if content["main"] not in content["points"] or not all(isinstance(label, str) for label in content["labels"]):
            raise ValueError("main point or labels")
        for point in content["points"].values():
            if not is_number(point["means"]["mIoU"]["value"]):
                raise ValueError("mIoU")
            _require_entries([point["means"], *point.get("classes", {}).values()])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no evaluation card ({type(error).__name__}: {error}); run evaluation.py --card again"
        ) from error
    return content


def _require_entries(groups: Iterable[Content]) -> None:
    """Makes sure that scores by name are of the form of `entry`.

    Raises:
        ValueError: one is not; its name is in the message.
        KeyError: as ValueError, as all errors of access.
    """
    for scores in groups:
        for name, score in scores.items():
            low, high = score["interval"]
            if not all(value is None or is_number(value) for value in (score["value"], low, high)):
                raise ValueError(name)


def read_counts(folder: Path, stem: str, point: str = "best") -> PerImage:
    """The counts of single images of a card at a point.

    Raises:
        UserError: as `read_card`; the card has no such point, or its two files are of different evaluations.
    """
    content = read_card(folder, stem)
    path = folder / f"{stem}_per_image.csv"
    counts = read_per_image(path, content["labels"])
    if point not in counts or point not in content["points"]:
        raise UserError(f"{path} has no point {point!r}; it has: {', '.join(counts)}")
    found = means(plain_totals(counts[point]), present_labels(counts[point]))["mIoU"].item()
    expected = content["points"][point]["means"]["mIoU"]["value"]
    if abs(found - expected) > 1e-6:
        raise UserError(
            f"{path} gives {found:.4f} mIoU, the card beside it {expected:.4f}: they are of different evaluations; "
            "run evaluation.py --card again"
        )
    return counts[point]
