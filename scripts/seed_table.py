"""Prints a run's scores beside the scores of the two trivial seeds, from the files of evaluation.py.

    python scripts/seed_table.py --name cti_demo --margin 35            of seeds
    python scripts/seed_table.py --name toco_demo --margin 15 --masks   of masks, and masks after the CRF

Exit code 1 if the score of the seeds at their best threshold, or of the masks before the CRF, is not at least --margin
mIoU above the better trivial seed.
"""

from pathlib import Path
from typing import Any

from common.run.command import number, script_parser
from common.run.config import between
from common.run.errors import UserError, run_script
from common.run.folder import MASK_SCORES, REFINED_MASK_SCORES, SEED_SCORES, RunFolder
from common.score.read import read_score

TRIVIAL = {
    "eval_trivial_background": "(a) nothing but background",
    "eval_trivial_first_label": "(b) whole image = its first label",
}


def read_scores(path: Path) -> dict[str, Any]:
    """An evaluation's JSON.

    Raises:
        UserError: the file does not exist, or is no result of an evaluation.
    """
    if not path.is_file():
        hint = "run evaluation.py first, also with --trivial background and --trivial first_label"
        raise UserError(f"no {path}: {hint}")
    scores = read_score(path, ["task"])
    return read_score(path, ["fixed"]) if scores["task"] == "cam" else scores


def of_seeds(run: RunFolder) -> tuple[dict[str, Any], list[tuple[str, float]]]:
    """The evaluation of a run's seeds, and its rows, best first."""
    seeds = read_scores(run.scores(SEED_SCORES))
    points = ("best", "their best threshold"), ("fixed", "the fixed threshold")
    rows = [(f"seeds at {title}, {seeds[name]['threshold']:.2f}", seeds[name]["mIoU"]) for name, title in points]
    return seeds, rows


def of_masks(run: RunFolder) -> tuple[dict[str, Any], list[tuple[str, float]]]:
    """The evaluation of a run's masks, and its rows: before and, if it was run, after the CRF."""
    masks = read_scores(run.scores(MASK_SCORES))
    rows = [("masks", masks["best"]["mIoU"])]
    refined = run.scores(REFINED_MASK_SCORES)
    if refined.is_file():
        rows.append(("masks after the CRF", read_scores(refined)["best"]["mIoU"]))
    return masks, rows


def table(run: RunFolder, masks: bool = False) -> tuple[list[str], float]:
    """The lines of the table, and the margin of the seeds or masks over the better trivial seed.

    Raises:
        UserError: a result is missing, or the results are of different images.
    """
    scored, found = (of_masks if masks else of_seeds)(run)
    trivial = {title: read_scores(run.scores(stem)) for stem, title in TRIVIAL.items()}
    sets = {(scores["list"], scores["images"]) for scores in (scored, *trivial.values())}
    if len(sets) > 1:
        raise UserError(f"the results in {run.path} are of different images: {sorted(sets)}; evaluate all on one list")
    margin = found[0][1] - max(scores["best"]["mIoU"] for scores in trivial.values())
    rows = [
        *found,
        *((f"trivial {title}", scores["best"]["mIoU"]) for title, scores in trivial.items()),
        (f"margin of the {'masks' if masks else 'best'} over the better trivial seed", margin),
    ]
    lines = [f"{scored['images']} images of list {scored['list']}".ljust(50) + "  mIoU (%)"]
    return lines + [f"{title:<50}{value:>10.2f}" for title, value in rows], margin


def main() -> int:
    """Prints the table; 1 if the margin is too small."""
    parser = script_parser(__doc__)
    parser.add_argument("--name", required=True, help="the run: experiment/<name>")
    parser.add_argument(
        "--margin",
        type=number(float, between(-100, 100)),
        default=0.0,
        help="least margin in mIoU (default: %(default)s)",
    )
    parser.add_argument("--masks", action="store_true", help="the run's masks instead of its seeds")
    args = parser.parse_args()
    lines, margin = table(RunFolder(args.name).existing(), args.masks)
    print("\n".join(lines))
    if margin < args.margin:
        print(f"FAILED: the margin should be at least {args.margin:g}")
        return 1
    return 0


if __name__ == "__main__":
    run_script(main)
