"""Prints a run's seed scores beside those of the two trivial seeds, from the files that evaluation.py wrote.

    python scripts/seed_table.py --name cti_demo --margin 35

Exit code 1 if the best seed score is not at least ``--margin`` mIoU above the better trivial one.
"""

import json
from pathlib import Path
from typing import Any

from common.config import script_parser
from common.errors import UserError, run_script
from common.run import RunFolder

TRIVIAL = {
    "eval_trivial_background": "(a) nothing but background",
    "eval_trivial_first_label": "(b) whole image = its first label",
}


def read_scores(path: Path) -> dict[str, Any]:
    """An evaluation's JSON.

    Raises:
        UserError: it is not there or no such file.
    """
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        if "mIoU" not in scores["best"] or "mIoU" not in scores["fixed"]:
            raise KeyError("mIoU")
    except FileNotFoundError:
        hint = "run evaluation.py first, also with --trivial background and --trivial first_label"
        raise UserError(f"no {path}: {hint}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no result of evaluation.py --task cam ({type(error).__name__}: {error})") from error
    return scores


def table(folder: Path) -> tuple[list[str], float]:
    """The lines of the table, and the margin of the best seed over the better trivial one.

    Raises:
        UserError: a result is missing, or they are of different images.
    """
    seeds = read_scores(folder / "eval_cam.json")
    trivial = {title: read_scores(folder / f"{stem}.json") for stem, title in TRIVIAL.items()}
    scored = {(scores["list"], scores["images"]) for scores in (seeds, *trivial.values())}
    if len(scored) > 1:
        raise UserError(f"the results in {folder} are of different images: {sorted(scored)}; evaluate all on one list")
    best, fixed = seeds["best"], seeds["fixed"]
    margin = best["mIoU"] - max(scores["best"]["mIoU"] for scores in trivial.values())
    rows = [
        (f"seeds at their best threshold, {best['threshold']:.2f}", best["mIoU"]),
        (f"seeds at the fixed threshold, {fixed['threshold']:.2f}", fixed["mIoU"]),
        *((f"trivial {title}", scores["best"]["mIoU"]) for title, scores in trivial.items()),
        ("margin of the best over the better trivial seed", margin),
    ]
    lines = [f"{seeds['images']} images of list {seeds['list']}".ljust(50) + "  mIoU (%)"]
    return lines + [f"{title:<50}{value:>10.2f}" for title, value in rows], margin


def main() -> int:
    """Prints the table; 1 if the margin is too small."""
    parser = script_parser(__doc__)
    parser.add_argument("--name", required=True, help="the run: experiment/<name>")
    parser.add_argument("--margin", type=float, default=0.0, help="mIoU that is asked for (default: %(default)s)")
    args = parser.parse_args()
    lines, margin = table(RunFolder(args.name).existing().path)
    print("\n".join(lines))
    if margin < args.margin:
        print(f"FAILED: the margin should be at least {args.margin:g}")
        return 1
    return 0


if __name__ == "__main__":
    run_script(main)
