"""Lists the runs in experiment/: method, experiment, weights trained so far, and every score of them.

    python scripts/list_runs.py
    python scripts/list_runs.py --method CTI --list train          # scores of one list, of runs of one method
    python scripts/list_runs.py --csv runs.csv                     # the same rows as a file

A row for each score (eval_*.json of the run), or for the run if it has none; the best score of a list comes first. An
experiment is the YAML that the run began with; of runs of earlier versions, which do not name it, the shipped one that
is most like their settings, in brackets with the number of keys in which they differ.
"""

import argparse
import csv
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from common.run.command import script_parser
from common.run.config import read_yaml
from common.run.errors import UserError, run_script
from common.run.files import atomic_write
from common.run.folder import EXPERIMENT_DIR, RunFolder, is_run_name
from common.run.log import read_metrics
from common.run.method import CONFIG_DIR, experiment_of, method_of
from common.run.text import read_json_object
from common.score.read import read_score


@dataclass
class Row:
    """A score of a run, or a run without one; texts as they are shown."""

    run: str
    method: str = ""
    experiment: str = ""
    trained: str = ""
    score: str = ""
    list: str = ""
    miou: float | None = None
    threshold: float | None = None


def rows_of(run: RunFolder) -> list[Row]:
    """All rows of a run, the best score of each list first."""
    row = Row(run.name, _method(run), _experiment(run), _trained(run.metrics))
    scores = [scored for file in sorted(run.path.glob("eval_*.json")) if (scored := _score(file, row))]
    return sorted(scores, key=lambda scored: (scored.list, -(scored.miou or 0.0))) or [row]


def _method(run: RunFolder) -> str:
    """The method of a run; a folder of a pipeline has YAMLs of its own."""
    files = [run.config, *sorted(run.path.glob("pipeline_*.yaml")), run.path / "run_sample.yaml"]
    return next((method for file in files if (method := method_of(file))), "")


def _experiment(run: RunFolder) -> str:
    """The YAML that the run began with, or the shipped one that is most like its configuration."""
    named = experiment_of(run.config)
    if named:
        return named
    own = _flat(_content(run.config))
    method = method_of(run.config)
    differing = {}
    for path in sorted(CONFIG_DIR.glob("*.yaml")) if own else ():
        keys = _flat(_content(path))
        if (not method or method_of(path) == method) and keys.keys() <= own.keys():
            differing[path.stem] = sum(own[key] != value for key, value in keys.items())
    if not differing:
        return ""
    nearest = min(differing, key=lambda name: (differing[name], name))
    return f"({nearest}, {differing[nearest]} differ)"


def _content(path: Path) -> dict[str, Any]:
    try:
        return read_yaml(path)
    except UserError:
        return {}


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by key, sections flattened; names of method and experiment left out."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        elif prefix:
            found[prefix + name] = value
    return found


def _trained(metrics: Path) -> str:
    """The last epoch and step in the log."""
    try:
        lines = read_metrics(metrics) if metrics.is_file() else []
    except UserError:
        return "damaged"
    last = next((values for values in reversed(lines) if "epoch" in values), None)
    return f"epoch {last['epoch']}, step {last['step']}" if last else ""


def _score(file: Path, of_run: Row) -> Row | None:
    """The row of an evaluation's JSON; None for another file; says so if it is damaged."""
    row = replace(of_run, score=file.stem.removeprefix("eval_"))
    try:
        if "best" not in read_json_object(file, "the scores"):  # scores of another kind, such as boxes
            return None
        content = read_score(file, ["list"])
        row.list = Path(content["list"]).stem
        row.miou = float(content["best"]["mIoU"])
        threshold = content["best"]["threshold"]
        row.threshold = None if threshold is None else float(threshold)
    except (UserError, KeyError):
        row.list = "damaged"
    return row


def table(rows: Sequence[Row]) -> str:
    """The rows as lines of text."""
    names = [field.name for field in fields(Row)]
    texts = [[_text(value) for value in asdict(row).values()] for row in rows]
    widths = [max(len(line[column]) for line in [names, *texts]) for column in range(len(names))]
    lines = ("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in [names, *texts])
    return "\n".join(line.rstrip() for line in lines)


def _text(value: object) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--method", help="only runs of this method, such as CTI")
    parser.add_argument("--list", help="only scores of this image list")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the rows to a file")
    return parser.parse_args()


def main() -> None:
    """Command line → table."""
    args = arguments()
    names = [path.name for path in sorted(EXPERIMENT_DIR.glob("*")) if path.is_dir() and is_run_name(path.name)]
    rows = [row for name in names for row in rows_of(RunFolder(name))]
    if args.method:
        rows = [row for row in rows if row.method.lower() == args.method.lower()]
    if args.list:
        rows = [row for row in rows if row.list == Path(args.list).stem]
    print(table(rows) if rows else f"no such runs in {EXPERIMENT_DIR.absolute()}")
    if args.csv:
        with atomic_write(args.csv, "w") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator=os.linesep)
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
        print(f"written: {args.csv}")


if __name__ == "__main__":
    run_script(main)
