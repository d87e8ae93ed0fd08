"""The table of scores at the end of a pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.run.errors import UserError
from common.run.text import read_json_object
from common.score.read import is_number, read_score


@dataclass(frozen=True)
class Score:
    """A row of the table: an evaluation's JSON, and the name of one of its points."""

    stage: str
    file: Path
    list_name: str
    point: str = "best"

    def row(self) -> dict[str, Any] | None:
        """Stage, list, images, threshold and mIoU (percent); None if there is no such score of this list.

        Raises:
            UserError: the file is damaged.
        """
        if not is_scored(self.file, self.list_name):
            return None
        content = read_score(self.file, ["images"])
        try:
            point = content[self.point]
            return {
                "stage": self.stage, "list": self.list_name, "images": content["images"],
                "threshold": point["threshold"], "mIoU": float(point["mIoU"]),
            }  # fmt: skip
        except KeyError as error:
            raise UserError(f"{self.file} is no evaluation ({type(error).__name__}: {error}); delete it") from error


def is_scored(file: Path, list_name: str, source: Path | None = None) -> bool:
    """Whether an evaluation of a list is there.

    Args:
        source: the folder of the predictions; None: any.
    """
    if not file.is_file():
        return False
    content = read_json_object(file, "the scores")
    scored = content.get("source", "")
    is_of_source = source is None or not scored or Path(str(scored)).resolve() == source.resolve()
    return content.get("list") == list_name and is_of_source


def is_table(rows: Any) -> bool:
    """Whether a value of a JSON is a table as `with_gains` gives it."""
    return isinstance(rows, list) and all(map(_is_row, rows))


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict):
        return False
    has_texts = all(isinstance(row.get(name), str) for name in ("stage", "list"))
    return has_texts and all(is_number(row.get(name)) for name in ("images", "mIoU", "gain"))


def with_gains(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """The rows of a pipeline's table; ``gain``: mIoU above the first row of the same list, the seeds' row."""
    rows = [row for score in scores if (row := score.row())]
    seeds: dict[str, float] = {}
    for row in rows:
        row["gain"] = row["mIoU"] - seeds.setdefault(row["list"], row["mIoU"])
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as lines of text."""
    width = max([len(row["stage"]) for row in rows] + [5])
    lists = max([len(Path(row["list"]).stem) for row in rows] + [4])
    lines = [f"{'stage':<{width}}  {'list':<{lists}}  images  mIoU (%)   gain"]
    lines += [
        f"{row['stage']:<{width}}  {Path(row['list']).stem:<{lists}}  {row['images']:>6}  {row['mIoU']:>8.2f}  "
        f"{round(row['gain'], 2) + 0.0:>+5.2f}"  # no -0.00
        for row in rows
    ]
    return "\n".join(lines)
