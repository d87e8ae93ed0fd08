"""Pictures of an evaluation card: confusion of labels, and the parts of every label's union."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.run.files import atomic_write

WRITTEN = 25  # labels up to which the cells of a confusion matrix have numbers


def draw_confusion(path: Path, matrix: np.ndarray, labels: Sequence[str], title: str) -> None:
    """Draws what the pixels of every true label are predicted as, in percent of the row.

    Args:
        matrix: pixels by true label (rows) and predicted label (K, K); or (K, K + 1), the last column without any.
        labels: names of the K labels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = matrix.sum(axis=1, keepdims=True)
    shares = 100 * matrix / np.maximum(rows, 1)
    columns = [*labels, "none"][: matrix.shape[1]]
    if not matrix[:, len(labels) :].any():
        shares, columns = shares[:, : len(labels)], list(labels)
    side = min(max(0.45 * len(labels) + 2.5, 5), 24)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    picture = axes.imshow(np.sqrt(shares / 100), vmin=0, vmax=1, cmap="viridis")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set(xlabel="predicted label", ylabel="true label")
    axes.set_title(title, fontsize=9)
    if len(labels) <= WRITTEN:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5:
                colour = "black" if share > 40 else "white"
                axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    bar = figure.colorbar(picture, ax=axes, shrink=0.8, label="percent of the true label's pixels")
    bar.set_ticks([0, 0.1**0.5, 0.25**0.5, 0.5**0.5, 1], labels=["0", "10", "25", "50", "100"])
    _save(figure, path)


def draw_classes(path: Path, classes: Mapping[str, Mapping[str, Any]], title: str) -> None:
    """Draws the union of every label as a bar: IoU with its interval, false positive and false negative share.

    Args:
        classes: a card's scores of labels at one point; labels without pixels are left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    there = {name: scores for name, scores in classes.items() if scores["IoU"]["value"] is not None}
    names = list(there)
    iou, extra, missed = (
        np.array([there[name][part]["value"] for name in names]) for part in ("IoU", "extra", "missed")
    )
    ends = np.array([there[name]["IoU"]["interval"] for name in names], dtype=float)
    figure = Figure(figsize=(8, min(max(0.26 * len(names) + 1.6, 3), 40)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = np.arange(len(names))
    axes.barh(places, iou, color="tab:green", label="IoU, with its 95 % interval")
    axes.barh(places, extra, left=iou, color="tab:orange", hatch="//", label="extra: false positive share")
    axes.barh(places, missed, left=iou + extra, color="tab:blue", hatch="..", label="missed: false negative share")
    known = np.isfinite(ends).all(axis=1)
    around = np.abs(ends[known].T - iou[known])
    axes.errorbar(iou[known], places[known], xerr=around, fmt="none", ecolor="black", capsize=2)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="percent of the union of prediction and truth")
    axes.set_title(title, fontsize=9)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, fontsize=8, frameon=False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    with atomic_write(path, durable=False) as file:
        figure.savefig(file, format="png", dpi=110)
