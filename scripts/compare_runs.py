"""Compares scored runs image by image: differences with 95 % intervals, per class, and the most changed images.

    python scripts/compare_runs.py cti_demo pcss_demo
    python scripts/compare_runs.py exp:eval_cam exp_irn:eval_png --images 20 --json difference.json
    python scripts/compare_runs.py cti pcss --point fixed --require "pcss>cti"        # exit code 1 if it is not sure
    python scripts/compare_runs.py cti_seed0 cti_seed1 cti_seed2 pcss_seed0 pcss_seed1 pcss_seed2

Each run needs an evaluation card of the same images: evaluation.py --card. NAME:STEM chooses one of a run's cards. All
later runs are compared with the first. Runs whose configurations differ in the random seed alone are taken together,
as mean ± standard deviation. docs/evaluation.md says how to read the numbers.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.run.command import script_parser
from common.run.errors import UserError, run_script
from common.run.files import write_json
from common.score.bootstrap import CONFIDENCE, RESAMPLES
from common.score.card import entry
from common.score.compare import Group, aligned, difference, grouped, label_differences, read_run

SHOWN = {"mIoU": "mIoU", "boundary_mIoU": "boundary mIoU", "extra": "extra", "missed": "missed"}  # means in the table


def compared(group: Group, base: Group, images: int) -> dict[str, Any]:
    """A comparison as plain containers: means, labels, and the images that changed most."""
    change = group.images.mean(axis=0) - base.images.mean(axis=0)
    order = [row for row in np.argsort(-np.abs(change), kind="stable").tolist() if change[row]][:images]
    return {
        "run": group.title, "base": base.title,
        "means": {name: entry(value) for name, value in difference(group, base).items()},
        "classes": {name: entry(value) for name, value in label_differences(group, base).items()},
        "images": {
            base.runs[0].counts.ids[row]: {"from": base.images[:, row].mean(), "to": group.images[:, row].mean()}
            for row in order
        },
        "better": int((change > 0).sum()), "worse": int((change < 0).sum()),
    }  # fmt: skip


def show_groups(groups: Sequence[Group]) -> None:
    """Prints the scores of each group."""
    width = max(len(group.title) for group in groups)
    print(" " * width + "".join(f"  {title:<24}" for title in SHOWN.values()))
    for group in groups:
        print(f"{group.title:<{width}}" + "".join(f"  {group.interval(name)!s:<24}" for name in SHOWN))
        spread = group.spread("mIoU")
        if spread:
            print(f"{'':<{width}}  mIoU {spread[0]:.2f} ± {spread[1]:.2f} over {len(group.runs)} seeds")


def show_comparison(group: Group, base: Group, images: int) -> None:
    """Prints the differences of two groups."""
    print(f"\n{group.title} above {base.title}:")
    for name, value in difference(group, base).items():
        if name in SHOWN:
            print(f"  {SHOWN[name]:<16}{value.difference():<28}{verdict(value.low, value.high)}")
    print("  IoU by class, the largest change first:")
    changes = label_differences(group, base)
    for name in sorted(changes, key=lambda name: -abs(changes[name].value)):
        value = changes[name]
        print(f"    {name:<16}{value.difference():<28}{verdict(value.low, value.high)}")
    result = compared(group, base, images)
    print(
        f"  images (mean IoU of the labels in each): {result['better']} better, {result['worse']} worse; most changed:"
    )
    for image_id, scores in result["images"].items():
        change = scores["to"] - scores["from"]
        print(f"    {image_id:<20}{scores['from']:6.2f} → {scores['to']:6.2f}  {change:+.2f}")


def verdict(low: float, high: float) -> str:
    """Whether an interval of a difference leaves its sign open."""
    return "" if low > 0 or high < 0 else "may be chance"


def requirements(texts: Sequence[str], groups: Sequence[Group]) -> list[str]:
    """The demands ``A>B`` that the intervals do not carry, as lines of text.

    Raises:
        UserError: a demand is of another form, or names a run that is not compared.
    """
    by_run = {run.title: group for group in groups for run in group.runs}
    failed = []
    for text in texts:
        parts = [part.strip() for part in re.split(">", text)]
        if len(parts) != 2:
            raise UserError(f"--require {text!r}: write it as 'A>B', with two of the compared runs")
        for name in parts:
            if name not in by_run:
                raise UserError(f"--require {text!r}: {name!r} is not compared; there are: {', '.join(by_run)}")
        better, worse = (by_run[name] for name in parts)
        if better is worse:
            raise UserError(f"--require {text!r}: both are of one group of seeds, or the same run")
        value = difference(better, worse)["mIoU"]
        if not value.is_above_zero:
            failed.append(f"{text}: the difference in mIoU is {value.difference()}; its interval is not above 0")
    return failed


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME[:STEM]", help="two or more runs with evaluation cards")
    parser.add_argument("--point", default="", help="best, fixed, tuned, ... (default: the card's main point)")
    parser.add_argument("--images", type=int, default=5, help="most changed images to list (default: %(default)s)")
    parser.add_argument("--require", action="append", default=[], metavar="A>B", help="exit with 1 unless it is sure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to a file")
    args = parser.parse_args()
    if len(args.runs) < 2:
        raise UserError("two runs are needed: NAME NAME")
    if args.images < 0:
        raise UserError(f"--images {args.images} must not be negative")
    return args


def main() -> int:
    """Prints the comparison; 1 if a requirement is not met."""
    args = arguments()
    groups = grouped(aligned([read_run(text, args.point) for text in args.runs]))
    first = groups[0].runs[0]
    print(f"{len(first.counts.ids)} images of list {first.list_name}; {CONFIDENCE} % intervals of {RESAMPLES} draws\n")
    show_groups(groups)
    for group in groups[1:]:
        show_comparison(group, groups[0], args.images)
    if args.json:
        scores = {group.title: {name: entry(group.interval(name)) for name in group.means} for group in groups}
        write_json(args.json, {
            "list": first.list_name, "images": len(first.counts.ids), "unit": "percent", "scores": scores,
            "differences": [compared(group, groups[0], len(first.counts.ids)) for group in groups[1:]],
        })  # fmt: skip
        print(f"\nwritten: {args.json}")
    failed = requirements(args.require, groups)
    for line in failed:
        print(f"FAILED: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
