"""Makes the result tables of README and docs from evaluation cards, with 95 % intervals.

    python scripts/results_table.py collect            # cards of the runs in experiment/ → docs/results.json
    python scripts/results_table.py write              # docs/results.json → the tables on the pages
    python scripts/results_table.py write --check      # exit code 1 if a page differs from docs/results.json
    python scripts/results_table.py show cti_demo pcss_demo crt_demo_irn:eval_png      # a table of any runs

docs/results.yaml has the tables: header, rows, and in braces the numbers. {NAME} is a run's mIoU; {NAME:STEM} that of
another card; {NAME:STEM:POINT:MEAN} another point or mean of it, or another score by its path in the card, such as
sizes.small.recall; {NAME:eval_wsol:WEIGHTS:SCORE} a score of localisation; {A - B} the paired difference in mIoU. A
page shows a table between the lines <!-- results: TABLE --> and <!-- /results -->.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.run.command import script_parser
from common.run.config import read_yaml
from common.run.errors import UserError, preview, run_script
from common.run.files import ROOT, atomic_write, write_json
from common.run.folder import CARD, SEED_SCORES, RunFolder
from common.run.text import read_json_object
from common.score.bootstrap import Interval
from common.score.card import entry, read_card
from common.score.compare import Group, aligned, difference, group_of, read_run
from common.score.means import MEANS

TABLES = ROOT / "docs" / "results.yaml"
NUMBERS = ROOT / "docs" / "results.json"
PLACE = re.compile(r"\{([^{}]+)\}")
BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- /results -->)", re.DOTALL)


def read_tables(path: Path) -> dict[str, dict[str, Any]]:
    """The tables by name: ``header``, a list of texts, and ``rows``, lists of as many.

    Raises:
        UserError: the file is missing or of another form.
    """
    try:
        tables = read_yaml(path)
        for name, table in tables.items():
            wrong = [row for row in table["rows"] if len(row) != len(table["header"])]
            if wrong:
                raise ValueError(f"in table {name}, the row {wrong[0]} is not of as many cells as the header")
            "".join(cell for row in [table["header"], *table["rows"]] for cell in row)  # texts alone
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} has no tables of header and rows ({type(error).__name__}: {error})") from error
    return tables


def places(tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The numbers that the tables name, each once."""
    cells = (cell for table in tables.values() for row in table["rows"] for cell in row)
    return list(dict.fromkeys(name for cell in cells for name in PLACE.findall(cell)))


def measure(place: str) -> Interval:
    """The number that a place in braces stands for.

    Raises:
        UserError: a run has no such card, point or score; or the runs of a difference do not go together.
    """
    if " - " in place:
        runs = [read_run(":".join(_parts(text)[:2]).rstrip(":"), _parts(text)[2]) for text in place.split(" - ")]
        group, base = (group_of([run]) for run in aligned(runs))
        return difference(group, base)["mIoU"]
    name, stem, point, score = _parts(place)
    run = RunFolder(name).existing()
    if stem == "eval_wsol":
        path = run.scores(stem)
        weights = read_json_object(path, "the scores of a localisation").get("weights", {}).get(point, {})
        found = {"value": weights.get(score), "interval": weights.get("intervals", {}).get(score)}
    else:
        path = run.path / f"{stem or SEED_SCORES}{CARD}"
        card = read_card(run.path, stem or SEED_SCORES)
        own = card["points"].get(point or card["main"], {})
        found = _at({**card, **own}, f"means.{score or 'mIoU'}" if score in ("", *MEANS) else score)
    try:
        return Interval(float(found["value"]), *map(float, found["interval"]))
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} has no score with an interval for {{{place}}}") from None


def _parts(text: str) -> list[str]:
    """Run, stem, point and score of a place; empty where they are left out."""
    return (text.strip().split(":") + [""] * 3)[:4]


def _at(content: Any, path: str) -> Any:
    """The value at a path of names with dots between them; None if there is none."""
    for name in path.split("."):
        content = content.get(name) if isinstance(content, dict) else None
    return content


def collect(tables: Mapping[str, Mapping[str, Any]], path: Path) -> int:
    """Measures every number whose runs are in ``experiment/``; the others keep the values of the file.

    Returns:
        1 if a number has no value at all.
    """
    numbers = read_numbers(path) if path.is_file() else {}
    wanted = places(tables)
    kept: list[str] = []
    missing: list[str] = []
    for place in wanted:
        try:
            numbers[place] = entry(measure(place))
        except UserError as error:
            (kept if place in numbers else missing).append(place)
            print(f"{place}: {str(error).splitlines()[0]}")
    write_json(path, {place: numbers[place] for place in wanted if place in numbers})
    print(f"{len(wanted) - len(kept) - len(missing)} numbers measured, {len(kept)} kept: {path}")
    if missing:
        print(f"without any value: {preview(missing)}")
    return 1 if missing else 0


def read_numbers(path: Path) -> dict[str, Any]:
    """The numbers of an earlier `collect`.

    Raises:
        UserError: the file is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"no {path}; make it: results_table.py collect")
    try:
        numbers = read_json_object(path, "the results")
        for number in numbers.values():
            Interval(number["value"], *map(float, number["interval"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no results ({error}); make it: results_table.py collect") from error
    return numbers


def rendered(table: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    """A table in Markdown, numbers with one decimal.

    Raises:
        UserError: a number was not collected.
    """

    def text(match: re.Match[str]) -> str:
        if match[1] not in numbers:
            raise UserError(f"{NUMBERS} has no value of {match[0]}; run the demo, then: results_table.py collect")
        number = numbers[match[1]]
        sign = "+" if " - " in match[1] else ""
        value, low, high = (f"{part:{sign}.1f}" for part in (number["value"], *number["interval"]))
        return f"{value} [{low}, {high}]"

    rows = [table["header"], ["---"] * len(table["header"]), *table["rows"]]
    return "".join(f"| {' | '.join(PLACE.sub(text, cell) for cell in row)} |\n" for row in rows).replace("|  |", "| |")


def pages(
    tables: Mapping[str, Mapping[str, Any]], numbers: Mapping[str, Any], files: Sequence[Path]
) -> dict[Path, str]:
    """The pages that their tables change, with their new texts.

    Raises:
        UserError: a page has a table that is not in docs/results.yaml.
    """
    changed = {}
    for file in files:
        old = file.read_text(encoding="utf-8")
        unknown = [name for _, name, _ in BLOCK.findall(old) if name not in tables]
        if unknown:
            raise UserError(f"{file} shows the table {unknown[0]!r}, which is not in {TABLES}")
        new = BLOCK.sub(lambda match: match[1] + rendered(tables[match[2]], numbers) + match[3], old)
        if new != old:
            changed[file] = new
    return changed


def show(texts: Sequence[str]) -> None:
    """Prints a table of runs: means of each, with intervals."""
    groups: list[Group] = [group_of([read_run(text)]) for text in texts]
    titles = ("mIoU", "boundary_mIoU", "extra", "missed")
    print(f"| run | {' | '.join(title.replace('_', ' ') for title in titles)} |\n|{'---|' * (len(titles) + 1)}")
    for group in groups:
        print(f"| {group.title} | {' | '.join(str(group.interval(title)) for title in titles)} |")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__)
    parser.add_argument("command", choices=("collect", "write", "show"))
    parser.add_argument("runs", nargs="*", metavar="NAME[:STEM]", help="of show: runs with evaluation cards")
    parser.add_argument("--check", action="store_true", help="of write: change nothing, exit with 1 if a page differs")
    args = parser.parse_args()
    if bool(args.runs) != (args.command == "show"):
        raise UserError("show takes runs, and only show does: results_table.py show NAME ...")
    return args


def main() -> int:
    """Command line → numbers or tables."""
    args = arguments()
    if args.command == "show":
        show(args.runs)
        return 0
    tables = read_tables(TABLES)
    if args.command == "collect":
        return collect(tables, NUMBERS)
    changed = pages(tables, read_numbers(NUMBERS), [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
    for file, text in changed.items():
        if not args.check:
            with atomic_write(file, "w") as page:
                page.write(text)
        print(f"{file}: {'differs from docs/results.json' if args.check else 'written'}")
    return 1 if args.check and changed else 0


if __name__ == "__main__":
    run_script(main)
