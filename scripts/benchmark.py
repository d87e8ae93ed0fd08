"""Measures what this repository claims about speed; every command prints a row of a Markdown table.

    python scripts/benchmark.py evaluation                 # all thresholds in one pass against an argmax for each
"""

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np

from common.errors import run_script
from common.metrics import SweepCounts, counts_by_argmax
from common.seeds import Seed


def main() -> int:
    """Command line → the chosen benchmark; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    add_evaluation(commands.add_parser("evaluation", help="threshold sweep of seeds"))
    args = parser.parse_args()
    return args.run(args)


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``evaluation``."""
    add = parser.add_argument
    add("--images", type=int, default=100, help="generated images (default: %(default)s)")
    add("--size", type=int, nargs=2, default=(375, 500), metavar=("H", "W"), help="of the images (default: 375 500)")
    add("--thresholds", type=int, default=81, help="0.00, 0.01, ... (default: %(default)s)")
    add("--argmax-images", type=int, default=10, help="how many of them for the slow way (default: %(default)s)")
    parser.set_defaults(run=run_evaluation)


def run_evaluation(args: argparse.Namespace) -> int:
    """Sweep against argmax per threshold on one core (both are single-threaded NumPy), nothing read from disk.

    Returns:
        1 if any count differs.
    """
    cv2.setNumThreads(1)
    num_labels, thresholds = 21, np.arange(args.thresholds) / 100
    images = [generated_seed(index, *args.size, num_labels - 1) for index in range(args.images)]
    subset = images[: args.argmax_images]
    sweep, part, slow = SweepCounts(num_labels, thresholds), SweepCounts(num_labels, thresholds), []
    SweepCounts(num_labels, thresholds).add(*images[0])  # warm-up
    sweep_ms = 1000 * seconds(lambda: [sweep.add(*image) for image in images]) / len(images)
    for image in subset:
        part.add(*image)
    argmax = seconds(lambda: slow.extend(counts_by_argmax(*image, num_labels, thresholds) for image in subset))
    argmax_ms = 1000 * argmax / len(subset)
    correct, predicted, truth = (sum(counts) for counts in zip(*slow, strict=True))
    equal = all(map(np.array_equal, (part.correct, part.predicted, part.truth), (correct, predicted, truth)))
    size = "x".join(map(str, args.size))
    print(f"{len(images)} generated images of {size} with 1-3 classes, {len(thresholds)} thresholds, one core; the one")
    print(f"pass measured on all, the argmax per threshold on the first {len(subset)}, whose counts are compared.\n")
    print("| one pass (ms/image) | argmax per threshold (ms/image) | ratio | counts |")
    print("|---|---|---|---|")
    print(f"| {sweep_ms:.2f} | {argmax_ms:.0f} | {argmax_ms / sweep_ms:.0f} | {'equal' if equal else 'DIFFERENT'} |")
    return 0 if equal else 1


def generated_seed(index: int, height: int, width: int, num_classes: int) -> tuple[Seed, np.ndarray]:
    """A seed of 1 to 3 classes as networks make them (smooth, normalised, zero over much of the image) and a mask.

    Every fourth image's scores lie exactly on thresholds, so that ties are met.
    """
    rng = np.random.default_rng(index)
    keys = np.sort(rng.choice(num_classes, size=1 + index % 3, replace=False))
    gt, seed = np.zeros((height, width), dtype=np.uint8), {}
    for key in keys:
        coarse = rng.random((height // 16, width // 16), dtype=np.float32)
        cam = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        cam = np.maximum(cam - 0.4, 0)
        cam /= cam.max()
        seed[int(key)] = np.round(cam, 2) if index % 4 == 3 else cam
        noisy = cam + 0.2 * cv2.resize(rng.random((12, 16), dtype=np.float32), (width, height))
        gt[noisy > 0.5] = key + 1
    gt[cv2.dilate(gt, np.ones((5, 5))) != cv2.erode(gt, np.ones((5, 5)))] = 255  # a border to ignore, as VOC has
    return seed, gt


if __name__ == "__main__":
    run_script(main)
