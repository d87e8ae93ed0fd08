"""Measures the evaluation card: time an image, time of the intervals, memory of a large set.

    python scripts/benchmark_card.py                       # 100 images, and intervals of 1,449
    python scripts/benchmark_card.py --memory 40000        # also counts generated seeds, and prints the peak memory

Both sides of a comparison run alternating on one core; ratios are of the fastest turns, in processor time.
"""

import argparse
import functools
import resource
import time
from collections.abc import Callable

import cv2
import numpy as np

from common.run.command import script_parser
from common.run.errors import UserError, run_script
from common.run.memory import keep_freed_memory
from common.score.bootstrap import RESAMPLES
from common.score.counts import SweepCounts
from common.score.image_counts import CardCounts, PerImage
from common.score.means import mean_intervals

LABELS = 21
THRESHOLDS = np.arange(100) / 100

Image = tuple[dict[int, np.ndarray], np.ndarray]  # a seed and its mask


def generated(index: int, size: tuple[int, int], classes: int) -> Image:
    """A smooth seed of some classes, zero over a part of the image, and a mask with a border to ignore."""
    rng = np.random.default_rng(index)
    height, width = size
    seed, gt = {}, np.zeros(size, dtype=np.uint8)
    for key in rng.choice(LABELS - 1, size=classes, replace=False).tolist():
        coarse = rng.random((max(height // 48, 2), max(width // 48, 2)), dtype=np.float32)
        cam = np.maximum(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) - 0.4, 0)
        seed[key] = cam / max(float(cam.max()), 1e-6)
        gt[seed[key] > 0.5] = key + 1
    gt[cv2.dilate(gt, np.ones((5, 5), np.uint8)) != cv2.erode(gt, np.ones((5, 5), np.uint8))] = 255
    return seed, gt


def fastest(turns: int, *works: Callable[[], object]) -> list[float]:
    """Processor seconds of the fastest of some turns, in which the works alternate."""
    best = [float("inf")] * len(works)
    for _ in range(turns):
        for place, work in enumerate(works):
            start = time.process_time()
            work()
            best[place] = min(best[place], time.process_time() - start)
    return best


def count(images: list[Image], card: bool) -> CardCounts:
    """Counts images at all thresholds, and with a card each by itself."""
    sweep, counts = SweepCounts(LABELS, THRESHOLDS), CardCounts(LABELS, len(THRESHOLDS))
    for number, (seed, gt) in enumerate(images):
        found = sweep.add(seed, gt)
        if card:
            counts.add_seed(str(number), seed, gt, found)
    return counts


def random_counts(images: int) -> PerImage:
    """Counts of images of 21 labels, as intervals need them."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 100_000, (2, images, LABELS)) * (rng.random((images, LABELS)) < 0.15)
    correct = (truth * rng.random((images, LABELS))).astype(np.int64)
    predicted = correct + rng.integers(0, 1000, truth.shape)
    return PerImage([str(number) for number in range(images)], [str(label) for label in range(LABELS)],
                    truth, predicted, correct)  # fmt: skip


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("--images", type=int, default=100, help="generated images (default: %(default)s)")
    add("--size", type=int, nargs=2, default=(375, 500), metavar=("H", "W"), help="of the images (default: 375 500)")
    add("--turns", type=int, default=5, help="timed turns (default: %(default)s)")
    add("--memory", type=int, default=0, metavar="N", help="also count N images of 96 x 128, and print the peak memory")
    args = parser.parse_args()
    if min(args.images, args.turns, *args.size) < 1 or args.memory < 0:
        raise UserError("--images, --size and --turns start at 1, --memory at 0")
    return args


def main() -> None:
    """Prints the rows."""
    args = arguments()
    cv2.setNumThreads(1)
    keep_freed_memory()  # as evaluation.py
    print("| classes an image | sweep (ms/image) | card besides (ms/image) | ratio of both to the sweep |")
    print("|---|---|---|---|")
    for classes in (1, 2, 3):
        images = [generated(index, tuple(args.size), classes) for index in range(args.images)]
        works = [functools.partial(count, images, card) for card in (False, True)]
        plain, both = (1000 * best / args.images for best in fastest(args.turns, *works))
        print(f"| {classes} | {plain:.2f} | {both - plain:.2f} | {both / plain:.2f} |")
    counts = random_counts(1449)
    (seconds,) = fastest(args.turns, lambda: mean_intervals(counts))
    print(f"\n{RESAMPLES} draws of {len(counts.ids)} images, {LABELS} labels: {seconds:.2f} s for all means")
    if args.memory:
        few = [generated(index, (96, 128), 1 + index % 3) for index in range(50)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        kept = count([few[index % len(few)] for index in range(args.memory)], True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{len(kept.images)} images counted: {peak:.0f} MB at the peak, {peak - before:.0f} MB for the counts")


if __name__ == "__main__":
    run_script(main)
