"""The table of a card, ``<stem>_per_image.csv``: a row for each reported point, image and label that occurs in it.

    point,id,label,class,truth,predicted,correct,boundary_truth,boundary_predicted,boundary_correct,IoU,missed,extra
    best,2007_000032,1,aeroplane,9101,8800,8011,2210,2105,1433,80.9909,11.0191,7.9900

Every image has a row of background. Sums over the rows of a label are the counts behind its scores.
"""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from common.run.errors import UserError
from common.run.files import atomic_write
from common.score.image_counts import REGION, PerImage

COUNTS = ("truth", "predicted", "correct", "boundary_truth", "boundary_predicted", "boundary_correct")
MOST = 1 << 53  # pixels of a label in an image, far above any
COLUMNS = ("point", "id", "label", "class", *COUNTS, "IoU", "missed", "extra")


def write_per_image(path: Path, points: Mapping[str, PerImage]) -> None:
    """Writes the counts of images at the reported points, atomically."""
    with atomic_write(path, "w") as file:
        table = csv.writer(file, lineterminator=os.linesep)
        table.writerow(COLUMNS)
        for point, counts in points.items():
            occurs = counts.truth[REGION] + counts.predicted[REGION] > 0
            occurs[:, 0] = True
            for row, label in np.argwhere(occurs).tolist():
                values = [
                    int(part[kind, row, label])
                    for kind in range(2)
                    for part in (counts.truth, counts.predicted, counts.correct)
                ]
                table.writerow([point, counts.ids[row], label, counts.labels[label], *values, *_shares(*values[:3])])


def _shares(truth: int, predicted: int, correct: int) -> list[str]:
    """IoU and the two kinds of error as percentages of the union; empty without any pixel."""
    union = truth + predicted - correct
    parts = correct, truth - correct, predicted - correct
    return [f"{100 * part / union:.4f}" if union else "" for part in parts]


def read_per_image(path: Path, labels: Sequence[str]) -> dict[str, PerImage]:
    """The counts of images by point.

    Args:
        labels: names of all K labels, background first.

    Raises:
        UserError: the file is missing or damaged, or of other labels.
    """
    if not path.is_file():
        raise UserError(f"no {path}: evaluation.py writes it with --card")
    rows: dict[str, dict[str, dict[int, list[int]]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            if tuple(table.fieldnames or ()) != COLUMNS:
                raise ValueError(f"the columns are {table.fieldnames}; {', '.join(COLUMNS)} are expected")
            for number, row in enumerate(table, start=2):
                label, values = _row(row, labels, number)
                own = rows.setdefault(row["point"], {}).setdefault(row["id"], {})
                if label in own:
                    raise ValueError(f"line {number} repeats label {label} of image {row['id']}")
                own[label] = values
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is no table of a card ({error}); run evaluation.py --card again") from error
    if not rows:
        raise UserError(f"{path} has no image; run evaluation.py --card again")
    return {point: _dense(own, labels) for point, own in rows.items()}


def _row(row: Mapping[str, str], labels: Sequence[str], number: int) -> tuple[int, list[int]]:
    """Label and counts of a line.

    Raises:
        ValueError: they are no numbers that can be.
    """
    if None in row.values() or None in row:
        raise ValueError(f"line {number} has not as many fields as the header")
    label = int(row["label"])
    values = [int(row[name]) for name in COUNTS]
    if not 0 <= label < len(labels) or labels[label] != row["class"]:
        raise ValueError(f"line {number}: label {label} {row['class']!r} is not of the evaluation's classes")
    parts = values[:3], values[3:]
    if any(min(part) < 0 or part[2] > min(part[:2]) or max(part) > MOST for part in parts):
        raise ValueError(f"line {number}: the counts {values} contradict each other")
    return label, values


def _dense(rows: Mapping[str, Mapping[int, Iterable[int]]], labels: Sequence[str]) -> PerImage:
    """The rows of a point as arrays."""
    counts = np.zeros((2, 3, len(rows), len(labels)), dtype=np.int64)
    for place, own in enumerate(rows.values()):
        for label, values in own.items():
            counts[:, :, place, label] = np.reshape(list(values), (2, 3))
    return PerImage(list(rows), list(labels), counts[:, 0], counts[:, 1], counts[:, 2])
