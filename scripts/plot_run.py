"""Draws the course of a run, a panel for each term, beside published curves.

    python scripts/plot_run.py exp
    python scripts/plot_run.py exp --reference docs/toco_reference_curve.csv
    python scripts/plot_run.py exp --reference "docs/toco_reference_curve.csv:voc deit_base" --smooth 0.1

Reads experiment/NAME/metrics.jsonl, writes experiment/NAME/curves.png: every logged mean as a pale line, their running
mean (weighted by the steps that each of them stands for) as a strong one, and a dotted line where a loss switches on.
A reference is a CSV with a row for each point: ``iteration``, and columns with the names of the run's terms, where a
field may be empty; each ``dataset`` and ``backbone`` has a series of its own, which FILE:SERIES chooses by its words.
Lines that begin with # are comments. The axis is the run's; references are drawn as far as it goes.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.report.reference import Curve, read_reference
from common.run.command import number, script_parser
from common.run.config import FRACTION
from common.run.errors import UserError, run_script
from common.run.files import atomic_write
from common.run.folder import RunFolder
from common.run.log import read_metrics

CONTEXT = ("step", "epoch", "kind", "steps")  # of a line of metrics.jsonl; everything else is a term
NO_LOSSES = ("lr", "seconds_per_step", "accuracy_", "val_")  # beginnings of terms that never switch on
PLAIN = ("lr", "seconds_per_step")  # terms that are not smoothed
COLUMNS = 3
COLOURS = ("tab:orange", "tab:green", "tab:red", "tab:purple")


@dataclass
class Term:
    """The logged means of a term.

    Attributes:
        steps: the step at the end of each window.
        values: the mean over it.
        weights: the number of steps in it.
    """

    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def smoothed(self, width: float) -> np.ndarray:
        """The mean over the last ``width`` steps at each point, weighted by the steps that each mean stands for.

        The steps in which a loss is not on yet do not count afterwards.
        """
        ends, values, weights = (np.asarray(column) for column in (self.steps, self.values, self.weights))
        totals = np.cumsum(np.append(0.0, values * weights))
        counts = np.cumsum(np.append(0.0, weights))
        first = np.searchsorted(ends, ends - width, side="right")
        begin = self.begins()
        if begin is not None:
            first[ends > begin] = np.maximum(first[ends > begin], np.searchsorted(ends, begin, side="right"))
        last = np.arange(1, len(ends) + 1)
        return (totals[last] - totals[first]) / (counts[last] - counts[first])

    def begins(self) -> float | None:
        """The last step before the term differs from 0, where it was 0 from the beginning; else None."""
        first = next((index for index, value in enumerate(self.values) if value != 0), 0)
        return self.steps[first - 1] if first else None


def read_run(path: Path) -> dict[str, Term]:
    """The terms of a run by name, in their order in the file.

    A line of an earlier version does not say how many steps it stands for: those since the line of its kind before.

    Raises:
        UserError: the file does not exist, a line of it is damaged, or it has no numbers.
    """
    terms: dict[str, Term] = defaultdict(Term)
    before: dict[str, float] = defaultdict(float)
    for line, values in enumerate(read_metrics(path), start=1):
        try:
            step = float(values["step"])
            kind = str(values.get("kind", ""))
            weight = float(values.get("steps", step - before[kind])) if kind == "train" else 1.0
            points = {name: float(values[name]) for name in values if name not in CONTEXT}
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}, line {line}: a value is no number ({error}); remove the line") from error
        before[kind] = step
        for name, value in points.items():
            terms[name].steps.append(step)
            terms[name].values.append(value)
            terms[name].weights.append(max(weight, 1.0))
    if not terms:
        raise UserError(f"{path} holds no numbers yet")
    return dict(terms)


def draw(
    path: Path, run: dict[str, Term], name: str, references: dict[str, dict[str, Curve]], smooth: float
) -> None:  # fmt: skip
    """Writes a picture with a panel for each term of the run; references are dashed.

    Args:
        smooth: width of the running mean as a share of the run; 0: none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    end = max(term.steps[-1] for term in run.values())
    begins: dict[float, list[str]] = defaultdict(list)
    for title, term in run.items():
        begin = term.begins()
        if begin is not None and not title.startswith(NO_LOSSES):
            begins[begin].append(title)
    rows = math.ceil(len(run) / COLUMNS)
    figure = Figure(figsize=(5 * COLUMNS, 3.2 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, (title, term) in zip(panels, run.items(), strict=False):
        is_smoothed = smooth > 0 and title not in PLAIN and len(term.values) >= 20
        axes.plot(
            term.steps, term.values, color="tab:blue", alpha=0.3 if is_smoothed else 1.0,
            marker="." if len(term.values) < 40 else "", label="logged means" if is_smoothed else name,
        )  # fmt: skip
        if is_smoothed:
            axes.plot(term.steps, term.smoothed(smooth * end), color="tab:blue", label=name)
        for index, (series, curves) in enumerate(references.items()):
            points = [point for point in sorted(curves.get(title, ())) if point[0] <= end]
            if points:
                colour = COLOURS[index % len(COLOURS)]
                axes.plot(*zip(*points, strict=True), "--", color=colour, marker=".", label=series)
        for step, begun in begins.items():
            if title in (*begun, "total"):
                axes.axvline(step, color="black", linewidth=0.9, linestyle=":", label="a loss switches on")
                axes.annotate(
                    ", ".join(begun), (step, 1), xycoords=("data", "axes fraction"), xytext=(2, -2),
                    textcoords="offset points", rotation=90, va="top", fontsize="x-small",
                )  # fmt: skip
        axes.set(title=title, xlabel="step", xlim=(0, end))
        axes.grid(alpha=0.3)
    for axes in panels[len(run) :]:
        axes.axis("off")
    entries = {text: line for axes in panels for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=min(len(entries), 6))
    with atomic_write(path, durable=False) as file:
        figure.savefig(file, format="png", dpi=100)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__)
    parser.add_argument("name", metavar="NAME", help="the run: experiment/NAME")
    parser.add_argument(
        "--reference", nargs="+", default=[], metavar="FILE[:SERIES]", help="CSV of published curves, or some of them"
    )
    parser.add_argument(
        "--smooth",
        type=number(float, FRACTION),
        default=0.05,
        help="width of the running mean as a share of the run (default: 0.05)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the picture (default: experiment/NAME/curves.png)")
    return parser.parse_args(argv)


def main() -> None:
    """Command line → picture."""
    args = arguments()
    folder = RunFolder(args.name).existing()
    run = read_run(folder.metrics)
    references: dict[str, dict[str, Curve]] = {}
    for text in args.reference:
        series = read_reference(text)
        known = {term for curves in series.values() for term in curves}
        if not known & run.keys():
            raise UserError(f"{text} has none of the run's terms {', '.join(run)}; its columns are {', '.join(known)}")
        references |= series
    path = args.out or folder.path / "curves.png"
    draw(path, run, args.name, references, args.smooth)
    print(f"{path}: {len(run)} terms of {args.name}" + "".join(f", {title}" for title in references))
    end = max(term.steps[-1] for term in run.values())
    for title, curves in references.items():
        first = min(point[0] for points in curves.values() for point in points)
        if first > end:
            print(f"note: {title} begins at step {first:g}, after the run's last line at step {end:g}")


if __name__ == "__main__":
    run_script(main)
