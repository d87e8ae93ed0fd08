"""Thresholds of class scores, which a validation finds and predictions use: ``classes.json`` beside the weights.

    {"best.pth": {"weights": "5f0c...", "list": "val", "images": 1449, "mean_f1": 0.93,
                  "classes": [{"name": "cat", "colour": [64, 0, 0], "threshold": 0.41, "f1": 0.95}, ...],
                  "background": {"threshold": 0.38, "list": "val", "mIoU": 69.5}}}

``weights`` is a digest of the file's content; an entry counts for weights of that content alone. A class without
threshold has `DEFAULT`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.data.masks import voc_palette
from common.run.errors import UserError
from common.run.files import write_json
from common.run.fingerprint import content_digest

FILE = "classes.json"
DEFAULT = 0.5  # probability from which an image shows a class, where no validation has found better


@dataclass(frozen=True)
class Tuned:
    """The entry of a file of weights.

    Attributes:
        classes: C foreground class names.
        thresholds: the probability from which an image shows a class, for each class.
        list_name: the images that they were tuned on; empty: none.
        background: the best threshold of the background; None where none was found.
        background_list: the images that it was tuned on.
    """

    classes: list[str]
    thresholds: list[float]
    list_name: str
    background: float | None = None
    background_list: str = ""


def read_tuned(weights: Path) -> Tuned | None:
    """The entry of a file of weights in the file beside it; None if there is none for weights of that content.

    Raises:
        UserError: the file is damaged.
    """
    entries = read_entries(weights.parent)
    digest = content_digest(weights) if entries else ""
    for entry in entries.values():
        if entry["weights"] == digest:
            background = entry.get("background") or {}
            return Tuned(
                [str(one["name"]) for one in entry["classes"]],
                [float(one.get("threshold", DEFAULT)) for one in entry["classes"]],
                str(entry["list"]), background.get("threshold"), str(background.get("list", "")),
            )  # fmt: skip
    return None


def read_entries(folder: Path) -> dict[str, dict[str, Any]]:
    """The entries of a folder of weights by the names of their files; empty if it has no such file.

    Raises:
        UserError: it is damaged.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}). Delete it; a validation writes it again") from error
    if not _is_sound(content):
        raise UserError(f"{path} is no table of class thresholds. Delete it; a validation writes it again")
    return content


def _is_sound(content: Any) -> bool:
    def is_share(value: Any) -> bool:
        return isinstance(value, int | float) and 0 <= value <= 1

    def is_entry(entry: Any) -> bool:
        return (
            isinstance(entry, dict)
            and isinstance(entry.get("weights"), str)
            and isinstance(entry.get("list"), str)
            and isinstance(entry.get("classes"), list)
            and all(
                isinstance(one, dict) and isinstance(one.get("name"), str) and is_share(one.get("threshold", DEFAULT))
                for one in entry["classes"]
            )
            and (not entry.get("background") or is_number(entry["background"]))
        )

    def is_number(background: Any) -> bool:
        threshold = background.get("threshold") if isinstance(background, dict) else None
        return isinstance(threshold, int | float) and 0 <= threshold < float("inf")

    return isinstance(content, dict) and all(map(is_entry, content.values()))


def best_threshold(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The threshold of the best F1 of a class, and that F1.

    It lies in the middle between two scores; of equally good ones the nearest to `DEFAULT` is taken.

    Args:
        scores: probabilities (N,).
        truth: whether the images show the class, bool (N,).

    Returns:
        `DEFAULT` and 0 where no image shows the class.
    """
    if not truth.any():
        return DEFAULT, 0.0
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + truth.sum())
    lower = np.append(ranked[1:], -1.0)
    is_cut = ranked > lower  # equal scores are on one side
    middles = (ranked + np.maximum(lower, 0)) / 2
    middles = np.where(middles > lower, middles, ranked)  # neighbouring numbers have no middle
    best = f1[is_cut].max()
    candidates = middles[is_cut & (f1 == best)]
    return float(candidates[np.abs(candidates - DEFAULT).argmin()]), float(best)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The sigmoids of class logits, float64."""
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def tuned_entry(
    logits: Mapping[int, np.ndarray], labels: np.ndarray, classes: Sequence[str], list_name: str
) -> dict[str, Any]:
    """The entry of a validation, without weights and background.

    Args:
        logits: class logits (C,) by the index of the image.
        labels: multi-hot (N, C).
    """
    indices = sorted(logits)
    scores = probabilities(np.stack([logits[index] for index in indices]))
    truth = labels[indices] > 0
    found = [best_threshold(own, there) for own, there in zip(scores.T, truth.T, strict=True)]
    shown = [f1 for (_, f1), there in zip(found, truth.T, strict=True) if there.any()]
    rows = [
        {"threshold": threshold, "f1": round(f1, 6)} if there.any() else {}
        for (threshold, f1), there in zip(found, truth.T, strict=True)
    ]
    return {
        "list": list_name, "images": len(indices), "mean_f1": round(float(np.mean(shown)), 6) if shown else None,
        "classes": [{**own, **row} for own, row in zip(named_colours(classes), rows, strict=True)],
    }  # fmt: skip


def named_colours(classes: Sequence[str]) -> list[dict[str, Any]]:
    """Names and colours of classes, as masks have them."""
    colours = voc_palette().tolist()
    return [{"name": name, "colour": colours[label]} for label, name in enumerate(classes, start=1)]


def write_entry(weights: Path, entry: Mapping[str, Any]) -> Path:
    """Puts the entry of a file of weights into the file beside it, whose path is returned."""
    path = weights.parent / FILE
    content = {**read_entries(weights.parent), weights.name: {"weights": content_digest(weights), **entry}}
    write_json(path, {name: content[name] for name in sorted(content)})
    return path


def store_background(weights: Path, classes: Sequence[str], threshold: float, list_name: str, miou: float) -> Path:
    """Stores the best threshold of the background for a file of weights; the path of the file beside it.

    Raises:
        UserError: that file is damaged.
    """
    digest = content_digest(weights)
    entries = read_entries(weights.parent)
    known = [entry for entry in entries.values() if entry["weights"] == digest]
    entry = known[0] if known else {"list": "", "classes": named_colours(classes)}
    found = {"threshold": threshold, "list": list_name, "mIoU": miou}
    return write_entry(weights, {**entry, "background": found})
