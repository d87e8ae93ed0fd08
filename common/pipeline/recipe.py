"""Recipes of reproductions: the stages from data to a paper's numbers, and the table of published and own numbers."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common.run.config import read_yaml
from common.run.errors import UserError, first_line
from common.run.files import ROOT
from common.run.folder import CARD, LAST_FILE, RunFolder
from common.run.similar import did_you_mean
from common.run.text import read_json_object

RECIPES = ROOT / "configs" / "reproduce"


@dataclass(frozen=True)
class Step:
    """A stage: a script and its arguments, with ``{name}`` for the run.

    Attributes:
        plan: the experiment whose hours the dry run shows.
        prepares: whether it makes data, so that it runs before the search for what is missing.
    """

    title: str
    command: str
    plan: str = ""
    prepares: bool = False

    def words(self, name: str, overrides: Sequence[str]) -> list[str]:
        """The command's words; evaluation.py takes data set and settings from the run."""
        words = shlex.split(self.command.format(name=name))
        takes_settings = not self.prepares and words[0] != "evaluation.py"
        return [*words, *(overrides if takes_settings else [])]

    def checkpoint(self, name: str) -> Path | None:
        """The last checkpoint of a training; None for another script."""
        words = self.words(name, [])
        is_training = Path(words[0]).name.startswith("train_")
        return RunFolder(words[words.index("--name") + 1]).checkpoints / LAST_FILE if is_training else None


@dataclass(frozen=True)
class Result:
    """A number that the paper reports, and where the run has it.

    Attributes:
        published: in percent; None where no number is published.
        expected: the range within which a reproduction is expected.
        run: the run's name, by ``{name}``.
        value: place of the number in the JSON, with dots.
    """

    what: str
    source: str
    file: str
    published: float | None = None
    expected: tuple[float, float] | None = None
    run: str = "{name}"
    value: str = "best.mIoU"

    def measured(self, name: str) -> tuple[float, list[float] | None]:
        """The number of a run, and its 95 % interval where the evaluation card has it.

        Raises:
            UserError: there is no such number.
        """
        path = RunFolder(self.run.format(name=name)).path / self.file
        value = _at(read_json_object(path, "the scores"), self.value.split("."), path)
        card = path.with_name(f"{path.stem}{CARD}")
        if not card.is_file():
            return value, None
        point = read_json_object(card, "the scores").get("points", {}).get(self.value.split(".")[0], {})
        return value, point.get("means", {}).get("mIoU", {}).get("interval")


@dataclass(frozen=True)
class Open:
    """A published number that no recipe leads to, and the reason."""

    what: str
    published: str
    why: str


@dataclass(frozen=True)
class Recipe:
    """The way from data to a paper's numbers on one data set."""

    name: str
    title: str
    lists: list[str]
    stages: list[Step]
    results: list[Result]
    open: list[Open] = field(default_factory=list)
    curves: str = ""  # CSV of published training curves, from the repository's root

    def planned_rows(self) -> list[dict[str, Any]]:
        """Rows of the table before anything has run."""
        return [{**asdict(result), "here": None, "interval": None, "within": None} for result in self.results]

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """A recipe's YAML.

        Raises:
            UserError: it cannot be read, or is no recipe.
        """
        content = read_yaml(path)
        try:
            return cls(
                path.stem, content["title"], content["lists"],
                [Step(**stage) for stage in content["stages"]],
                [Result(**{**result, "expected": result.get("expected")}) for result in content["results"]],
                [Open(**number) for number in content.get("open", [])], content.get("curves", ""),
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is no recipe ({type(error).__name__}: {first_line(error)}); those of configs/reproduce show "
                "its entries"
            ) from error


def recipe_path(method: str, dataset: str) -> Path:
    """The recipe of a method on a data set.

    Raises:
        UserError: there is none.
    """
    path = RECIPES / f"{method}_{dataset}.yaml"
    if not method or not path.is_file():
        known = sorted(file.stem for file in RECIPES.glob("*.yaml"))
        hint = did_you_mean(path.stem, known)
        raise UserError(
            f"no recipe of {method or 'no method'!r} on {dataset!r}.{hint} There are (METHOD_DATASET): "
            f"{', '.join(known)}"
        )
    return path


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Published numbers beside those of a run."""
    lines = [
        "| result | published | here (95 % interval) | difference | expected | within |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(f"| {row['what']} | {' | '.join(cells(row))} |")
    return "\n".join(lines)


def cells(row: dict[str, Any]) -> list[str]:
    """Published, here, difference, expected, within."""
    here, published, expected = row["here"], row["published"], row["expected"]
    interval = f" [{row['interval'][0]:.1f}, {row['interval'][1]:.1f}]" if row["interval"] else ""
    return [
        "none" if published is None else f"{published:.1f}",
        "open" if here is None else f"{here:.2f}{interval}",
        "" if here is None or published is None else f"{here - published:+.2f}",
        "" if expected is None else f"{expected[0]:.1f} to {expected[1]:.1f}",
        {None: "", True: "yes", False: "no"}[row["within"]],
    ]


def _at(content: Any, keys: Sequence[str], path: Path) -> float:
    try:
        for key in keys:
            content = content[key]
        return float(content)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} has no number {'.'.join(keys)}; delete it and run the same command again") from error
