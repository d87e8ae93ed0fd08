"""Draws the course of a run, a panel for each term, beside published curves.

    python scripts/plot_run.py exp
    python scripts/plot_run.py exp --reference docs/toco_reference_curve.csv --dataset voc --backbone deit_base

Reads experiment/NAME/metrics.jsonl, writes experiment/NAME/curves.png. A reference is a CSV with a row for each point:
``iteration``, and columns with the names of the run's terms, where a field may be empty; each ``dataset`` and
``backbone`` has curves of its own. Lines that begin with # are comments.
"""

import argparse
import csv
import math
from collections import defaultdict
from pathlib import Path

from common.run.command import script_parser
from common.run.errors import UserError, run_script
from common.run.files import atomic_write
from common.run.folder import RunFolder
from common.run.log import read_metrics
from common.run.text import read_lines

CONTEXT = ("step", "epoch", "kind")  # of a line of metrics.jsonl; everything else is a term
SERIES = ("dataset", "backbone")  # columns that tell a reference's curves apart
COLUMNS = 3

Curve = list[tuple[float, float]]  # step, value


def read_run(path: Path) -> dict[str, Curve]:
    """The curves of a run by term, in their order in the file.

    Raises:
        UserError: the file does not exist, a line of it is damaged, or it has no numbers.
    """
    curves: dict[str, Curve] = defaultdict(list)
    for number, values in enumerate(read_metrics(path), start=1):
        for term in [term for term in values if term not in CONTEXT]:
            try:
                curves[term].append((float(values["step"]), float(values[term])))
            except (ValueError, TypeError) as error:
                raise UserError(f"{path}, line {number}: {term} is no number ({error}); remove the line") from error
    if not curves:
        raise UserError(f"{path} holds no numbers yet")
    return curves


def read_reference(path: Path, wanted: dict[str, str | None]) -> dict[str, dict[str, Curve]]:
    """The curves of a reference by name and term.

    Args:
        wanted: the value that a column of `SERIES` must have; None for any.

    Raises:
        UserError: the file, the column ``iteration`` or a wanted one does not exist, no row is left, or a field is no
            number.
    """
    lines = [line for line in read_lines(path, "the reference") if line and not line.startswith("#")]
    table = csv.DictReader(lines)
    try:
        rows = list(table)
    except csv.Error as error:
        raise UserError(f"the reference {path} is no table of numbers ({error}); take a CSV") from error
    columns = table.fieldnames or []
    for name in ("iteration", *(column for column, value in wanted.items() if value)):
        if name not in columns:
            raise UserError(f"{path} has no column {name!r}; it has {', '.join(columns)}")
    for column, value in wanted.items():
        there = sorted({row[column] for row in rows}) if value else []
        if value and value not in there:
            raise UserError(f"{path} has no rows of {column} {value!r}; there are: {', '.join(there)}")
        rows = [row for row in rows if not value or row[column] == value]
    curves: dict[str, dict[str, Curve]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        name = " ".join(row[column] for column in SERIES if column in columns)
        for term, text in row.items():
            if text and term not in (*SERIES, *CONTEXT, "iteration"):
                curves[name][term].append((_number(path, row["iteration"]), _number(path, text)))
    return curves


def draw(path: Path, run: dict[str, Curve], name: str, references: dict[str, dict[str, Curve]]) -> None:
    """Writes a picture with a panel for each term of the run; references are dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = math.ceil(len(run) / COLUMNS)
    figure = Figure(figsize=(5 * COLUMNS, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, (term, points) in zip(panels, run.items(), strict=False):
        axes.plot(*zip(*points, strict=True), color="tab:blue", marker="." if len(points) < 40 else "", label=name)
        colours = ("tab:orange", "tab:green", "tab:red", "tab:purple")
        for index, (title, curves) in enumerate(references.items()):
            if term in curves:
                colour = colours[index % len(colours)]
                axes.plot(*zip(*sorted(curves[term]), strict=True), "--", color=colour, marker=".", label=title)
        axes.set(title=term, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    for axes in panels[len(run) :]:
        axes.axis("off")
    with atomic_write(path, durable=False) as file:
        figure.savefig(file, format="png", dpi=100)


def _number(path: Path, text: str) -> float:
    try:
        return float(text)
    except (ValueError, TypeError):  # a list: more fields than columns
        raise UserError(f"{path}: {text!r} is no number") from None


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__)
    parser.add_argument("name", metavar="NAME", help="the run: experiment/NAME")
    parser.add_argument("--reference", type=Path, metavar="FILE", help="CSV of published curves")
    for column in SERIES:
        parser.add_argument(f"--{column}", help=f"only the reference's curves of this {column}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the picture (default: experiment/NAME/curves.png)")
    args = parser.parse_args()
    if args.reference is None and any(getattr(args, column) for column in SERIES):
        raise UserError(f"{' and '.join(f'--{column}' for column in SERIES)} choose curves of --reference FILE")
    return args


def main() -> None:
    """Command line → picture."""
    args = arguments()
    folder = RunFolder(args.name).existing()
    run = read_run(folder.metrics)
    references = {}
    if args.reference:
        references = read_reference(args.reference, {column: getattr(args, column) for column in SERIES})
        known = {term for curves in references.values() for term in curves}
        if not known & run.keys():
            raise UserError(
                f"{args.reference} has none of the run's terms {', '.join(run)}; its columns are {', '.join(known)}"
            )
    path = args.out or folder.path / "curves.png"
    draw(path, run, args.name, references)
    print(f"{path}: {len(run)} terms of {args.name}" + "".join(f", {title}" for title in references))


if __name__ == "__main__":
    run_script(main)
