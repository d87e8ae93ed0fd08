"""Writes docs/reproductions.md: every published number with its recipe, expected range and evidence.

    python scripts/reproductions_page.py

From the recipes in configs/reproduce/ and the records of finished reproductions in docs/reproductions/.
"""

from collections.abc import Sequence
from typing import Any

from common.pipeline.recipe import RECIPES, Recipe, table
from common.run.command import script_parser
from common.run.errors import run_script
from common.run.files import ROOT, atomic_write
from common.run.text import read_json_object

FINISHED = ROOT / "docs" / "reproductions"
PAGE = ROOT / "docs" / "reproductions.md"
HEAD = """# Published numbers, and their reproduction

Made by `python scripts/reproductions_page.py` from `configs/reproduce/*.yaml` and from the records of finished
reproductions in `docs/reproductions/`. "Open": nobody has run it here yet; the command is ready, and `--dry-run` shows
its stages and hours. A range is "expected" where other seeds and machines were seen or are likely to lie; intervals are
over images, and differences between training seeds come on top.
"""


def main() -> int:
    """Recipes and records → page. Returns the exit code."""
    script_parser(__doc__).parse_args()
    with atomic_write(PAGE, "w") as file:
        file.write(page())
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 0


def page() -> str:
    """The page's text."""
    return HEAD + "".join(section(Recipe.read(path)) for path in sorted(RECIPES.glob("*.yaml")))


def section(recipe: Recipe) -> str:
    """A recipe's part of the page."""
    method, _, dataset = recipe.name.rpartition("_")
    option = "" if dataset == "voc12" else f" --dataset {dataset}"
    finished = FINISHED / f"{recipe.name}.json"
    record = read_json_object(finished, "the record of the reproduction") if finished.is_file() else None
    rows = record["results"] if record else recipe.planned_rows()
    lines = ["", f"## {recipe.title}", "", f"    python scripts/reproduce.py {method}{option}", "", table(rows), ""]
    lines += [f"* {row['what']}: {row['source']}" for row in rows]
    if record:
        minutes = sum(stage["seconds"] for stage in record["stages"]) / 60
        lines.append(
            f"* evidence: [{finished.name}](reproductions/{finished.name}), commit {record['commit'][:12]}, "
            f"{record['device']}, {minutes:.0f} minutes, {memory(record['stages'])}"
        )
    if recipe.open:
        lines += ["", "| published, without a recipe | | why |", "|---|---|---|"]
        lines += [f"| {number.what} | {number.published} | {number.why} |" for number in recipe.open]
    return "\n".join(lines) + "\n"


def memory(stages: Sequence[dict[str, Any]]) -> str:
    """The largest peak memory of a process, and of a GPU where one was used."""
    host, gpu = (max(stage.get(key, 0) for stage in stages) / 1e9 for key in ("peak_memory", "peak_gpu_memory"))
    return f"{host:.1f} GB" + (f", {gpu:.1f} GB on the GPU" if gpu else "")


if __name__ == "__main__":
    run_script(main)
