"""Scores of IRN's label maps on images with true masks."""

from typing import Any

import numpy as np

from common.data.dataset import class_names
from common.data.layout import DataConfig
from common.data.outputs import MaskFolder
from common.run.files import write_json
from common.run.folder import RunFolder
from common.run.processes import Processes
from common.score.evaluate import evaluate
from common.score.files import FilePredictions, MaskFiles
from common.score.options import EvalConfig
from common.score.report import NotScored


def label_scores(confusion: np.ndarray) -> dict[str, float]:
    """The labelled share of the pixels, and the right share of the labelled pixels, in percent.

    Args:
        confusion: int64 (C + 1, C + 2) as `ConfusionCounts.matrix`: the last column counts ignored pixels.

    Returns:
        ``coverage``: labelled pixels. ``accuracy``: right pixels among them; ``accuracy_background`` and
        ``accuracy_foreground``: among those labelled as background and as a class. NaN if there are no such pixels.
    """
    labelled = confusion[:, :-1]
    right = labelled.diagonal()

    def percent(part: np.ndarray, whole: np.ndarray) -> float:
        return 100 * float(part.sum() / whole.sum()) if whole.sum() else float("nan")

    return {
        "coverage": percent(labelled, confusion),
        "accuracy": percent(right, labelled),
        "accuracy_background": percent(right[:1], labelled[:, 0]),
        "accuracy_foreground": percent(right[1:], labelled[:, 1:]),
    }


def report_labels(
    folder: MaskFolder, data: DataConfig, list_name: str, run: RunFolder, processes: Processes, num_workers: int
) -> None:
    """Prints `label_scores` over a list and writes ``eval_ir_label.json``, or prints the reason for no score.

    Images of the list without a label map or a true mask are left out.
    """
    truth = MaskFiles(data, list_name)
    ids = [image_id for image_id in truth.ids if folder.is_done(image_id) and truth.path(image_id).is_file()]
    if not ids:
        processes.say(NotScored(f"no image of {list_name!r} has both a label map in {folder.path} and a true mask"))
        return
    result = evaluate(
        ids, FilePredictions(folder.path, "png"), truth, class_names(data), EvalConfig(), "png", list_name,
        str(folder.path), processes=processes, num_workers=num_workers,
    )  # fmt: skip
    if processes.is_main:
        scores = label_scores(result.confusion.matrix)
        content: dict[str, Any] = {"source": result.source, "list": list_name, "images": len(ids), "unit": "percent"}
        write_json(run.path / "eval_ir_label.json", content | scores)
        print(
            f"{folder.path}, {len(ids)} images of {list_name!r}: {scores['coverage']:.1f}% of the pixels are labelled, "
            f"{scores['accuracy']:.1f}% of them right (background {scores['accuracy_background']:.1f}%, classes "
            f"{scores['accuracy_foreground']:.1f}%)"
        )
