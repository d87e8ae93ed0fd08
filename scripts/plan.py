"""Tells the costs of a training before it is started: operations, memory, GPU hours, disk; needs no GPU, data, weights.

    python scripts/plan.py --exp cti_cvpr24                                    on every known GPU
    python scripts/plan.py --exp cti_cvpr24 train.batch_size=128 runtime.precision=bf16 --gpu 3090
    python scripts/plan.py --exp toco_cvpr23 --gpu 48,150                      any GPU: memory in GB, TFLOP/s
    python scripts/plan.py --table                                             the README's table of all methods

Operations and memory are those of the code as it stands: the training step runs on tensors without data. Seconds follow
from the GPU's peak speed and the share of it that a training reaches (--share), an assumption: scripts/benchmark.py
measures it. A micro-batch that does not fit is cut by train.accumulation; the global batch, and so the result, stays.
"""

import argparse
import json
import sys
from typing import Any

from common.pipeline.plan import CONTEXT, GB, GPUS, Fit, Gpu, Plan, gpu
from common.run.command import script_parser
from common.run.errors import UserError, run_script
from common.run.progress import progress

SHARE = 0.35
PUBLISHED = ("cti_cvpr24", "pcss_eccv24", "dig_eccv24", "toco_cvpr23", "crt_2022", "deeplab_voc")


def main() -> int:
    """Plans one experiment, or the table of all. Returns the exit code."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("overrides", nargs="*", metavar="key=value", help="configuration keys, as of the training")
    add("--exp", help="experiment: a name in configs/ or a YAML file")
    add("--gpu", action="append", default=[], help=f"one of {', '.join(GPUS)}, or GB,TFLOPS; may be repeated")
    add("--share", type=float, default=SHARE, help="share of the GPU's peak that is reached (default: %(default)s)")
    add("--images", type=int, default=0, help="number of training images (default: of the list)")
    add("--classes", type=int, default=0, help="number of classes (default: of the data set)")
    add("--json", action="store_true", help="print the plan as JSON")
    add("--table", action="store_true", help="print one row for each method, as published")
    args = parser.parse_intermixed_args()
    if bool(args.exp) == args.table:
        raise UserError("give either --exp NAME or --table")
    if not 0 < args.share <= 1:
        raise UserError(f"--share {args.share}: it must be above 0 and at most 1")
    if min(args.images, args.classes) < 0:
        raise UserError("--images and --classes must be at least 0")
    cards = [gpu(text) for text in args.gpu] or list(GPUS.values())
    if args.table:
        print_table(cards, args)
    else:
        plan = Plan(args.exp, args.overrides, args.images, args.classes)
        fits = {card.name: plan.fit(card, args.share) for card in progress(cards, "planning")}
        if args.json:
            print(json.dumps(as_json(plan, fits, args.share), indent=2))
        else:
            print_plan(plan, cards, fits, args.share)
    return 0


def print_plan(plan: Plan, cards: list[Gpu], fits: dict[str, Fit | None], share: float) -> None:
    """One experiment on several GPUs."""
    config = plan.config
    course = plan.course
    micro_batch = config.train.batch_size // config.train.accumulation
    cost = plan.cost(micro_batch)
    print(
        f"{plan.exp}: {plan.method}, {course.images} images, {course.classes} classes, {course.steps} steps of "
        f"{config.train.batch_size} images, {config.runtime.precision}"
    )
    total = course.steps * config.train.accumulation * cost.flops
    print(f"\n| a micro-batch of {micro_batch} | |\n|---|---|")
    print(f"| operations | {cost.flops / 1e12:.2f} TFLOP; the whole training {total / 1e15:.0f} PFLOP |")
    for title, size in (
        ("weights, frozen networks included", cost.weights), ("gradients", cost.gradients),
        ("optimiser", cost.optimizer), ("saved activations", cost.saved), ("peak, without CUDA's own", cost.memory),
    ):  # fmt: skip
        print(f"| {title} | {size / GB:.2f} GB |")
    print(f"| disk | checkpoints {plan.checkpoint_bytes() / GB:.1f} GB, seeds as npy {plan.seed_bytes() / GB:.1f} GB |")
    print(f"\n| GPU | largest micro-batch | settings | memory | s a step | hours at {share:.0%} of the peak |")
    print("|---|---|---|---|---|---|")
    for card in cards:
        print(row(card, fits[card.name], plan))


def row(card: Gpu, fit: Fit | None, plan: Plan) -> str:
    """The row of a GPU."""
    if fit is None:
        least = plan.cost(plan.micro_batches()[-1]).memory + CONTEXT
        return f"| {card.name} ({card.memory:g} GB) | none | the smallest needs {least / GB:.1f} GB | | | |"
    hours = plan.course.steps * fit.seconds / 3600
    return (
        f"| {card.name} ({card.memory:g} GB) | {fit.micro_batch} | train.accumulation={fit.accumulation} | "
        f"{fit.memory / GB:.1f} GB | {fit.seconds:.2f} | {hours:.1f} |"
    )


def print_table(cards: list[Gpu], args: argparse.Namespace) -> None:
    """One row for each method, as published."""
    print("| training, as published | whole batch (GB) | one micro-batch of the smallest size (GB) |", end="")
    print("".join(f" {card.name}: hours, micro-batch |" for card in cards))
    print("|---|---|---|" + "---|" * len(cards))
    for exp in progress(PUBLISHED, "planning"):
        plan = Plan(exp, args.overrides, args.images, args.classes)
        sizes = plan.micro_batches()
        whole, least = ((plan.cost(size).memory + CONTEXT) / GB for size in (sizes[0], sizes[-1]))
        cells = [table_cell(plan, plan.fit(card, args.share)) for card in cards]
        print(f"| {plan.method}: `{exp}`, batch {sizes[0]} | {whole:.1f} | {least:.1f} | {' | '.join(cells)} |")
        sys.stdout.flush()


def table_cell(plan: Plan, fit: Fit | None) -> str:
    """Hours and micro-batch on a GPU."""
    if fit is None:
        return "does not fit"
    return f"{plan.course.steps * fit.seconds / 3600:.1f}, {fit.micro_batch}"


def as_json(plan: Plan, fits: dict[str, Fit | None], share: float) -> dict[str, Any]:
    """The plan for programs: bytes, FLOP, seconds, hours."""
    config = plan.config
    cost = plan.cost(config.train.batch_size // config.train.accumulation)
    return {
        "experiment": plan.exp, "method": plan.method, "precision": config.runtime.precision,
        "course": vars(plan.course), "share": share, "micro_batch": vars(cost) | {"memory": cost.memory},
        "checkpoint_bytes": plan.checkpoint_bytes(), "seed_bytes": plan.seed_bytes(),
        "gpus": {
            name: fit and vars(fit) | {"hours": plan.course.steps * fit.seconds / 3600} for name, fit in fits.items()
        },
    }  # fmt: skip


if __name__ == "__main__":
    run_script(main)
