"""Measures voting over segments and fusion of seeds, beside reading their files; prints Markdown rows.

    python scripts/benchmark_beyond.py                         # an image of 375 x 500, 2 classes, 100 segments
    python scripts/benchmark_beyond.py --size 640 640 --classes 4 --segments 300 --runs 3

Times are CPU milliseconds an image on one thread, the least of all turns; ratios are to reading the same files: a seed
and its segments, or the seeds of all runs.
"""

import argparse
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from common.data.seeds import Seed, read_seed, write_seed
from common.data.segments import read_segments, write_entries, write_labels
from common.run.errors import UserError, run_script
from methods.fusion.config import RULES as FUSION_RULES
from methods.fusion.fusing import agreeing_runs, fuse, run_labels
from methods.segments.config import RULES as VOTE_RULES
from methods.segments.voting import vote

THRESHOLD = 0.4


def main() -> None:
    """Command line → rows of the vote, then of the fusion."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--size", type=int, nargs=2, default=(375, 500), metavar=("H", "W"), help="of the image (default: 375 500)")
    add("--classes", type=int, default=2, help="of the image (default: %(default)s)")
    add("--segments", type=int, default=100, help="of the image (default: %(default)s)")
    add("--runs", type=int, default=2, help="that are fused (default: %(default)s)")
    add("--turns", type=int, default=30, help="timed turns (default: %(default)s)")
    args = parser.parse_args()
    if min(*args.size, args.classes, args.segments, args.turns) < 1 or args.runs < 2:
        raise UserError("--size, --classes, --segments and --turns are at least 1, --runs at least 2")
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(Path(folder), (args.size[0], args.size[1]), args)
    print("| | ms | reading the files (ms) | ratio |\n|---|---|---|---|")
    for title, own, reading in rows:
        print(f"| {title} | {own:.2f} | {reading:.2f} | {own / reading:.2f} |")


def measured(folder: Path, size: tuple[int, int], args: argparse.Namespace) -> list[tuple[str, float, float]]:
    """Rows of title, milliseconds, and milliseconds for reading the files."""
    rng = np.random.default_rng(0)
    seeds = [smooth_seed(rng, size, args.classes) for _ in range(args.runs)]
    files = [write_seed(folder, str(run), seed) for run, seed in enumerate(seeds)]
    labels = cells(rng, size, args.segments)
    write_labels(folder / "segments.npz", labels)
    regions = [labels == number for number in np.unique(labels)]
    write_entries(folder / "segments.json", regions, [0.5] * len(regions))

    def time_of(work: Callable[[], object]) -> float:
        return least_time(work, args.turns)

    rows = []
    of_seed = time_of(lambda: read_seed(files[0]))
    for kind in ("npz", "json"):
        path = folder / f"segments.{kind}"
        segments = read_segments(path, size)
        reading = of_seed + time_of(functools.partial(read_segments, path, size))
        for rule in VOTE_RULES if kind == "npz" else ("mean",):
            own = time_of(functools.partial(vote, seeds[0], segments, rule))
            rows.append((f"vote, {rule}, {kind}", own, reading))
    own = time_of(lambda: vote(seeds[0], segments, "mean", THRESHOLD, 0.2))
    rows.append(("vote, mean, min_cover, json", own, reading))
    reading = time_of(lambda: [read_seed(file) for file in files])
    weights, thresholds = [1 / args.runs] * args.runs, [THRESHOLD] * args.runs
    for how in FUSION_RULES:
        own = time_of(functools.partial(fuse, seeds, how, weights, thresholds))
        rows.append((f"fusion of {args.runs}, {how}", own, reading))
    rows.append(("agreement", time_of(lambda: agreeing_runs(run_labels(seeds, thresholds, size))), reading))
    return rows


def least_time(work: Callable[[], object], turns: int) -> float:
    """The least CPU time of some turns, in milliseconds."""
    times = []
    for _ in range(turns + 1):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1000 * min(times[1:])


def smooth_seed(rng: np.random.Generator, size: tuple[int, int], classes: int) -> Seed:
    """Blurred noise in [0, 1] for each class."""
    noise = (cv2.GaussianBlur(rng.random(size).astype(np.float32), (0, 0), 15) for _ in range(classes))
    return {key: (values - values.min()) / np.ptp(values) for key, values in enumerate(noise)}


def cells(rng: np.random.Generator, size: tuple[int, int], count: int) -> np.ndarray:
    """A label map of about ``count`` cells, each around a random point; from 1, uint16 (H, W)."""
    points = rng.random((count, 2)) * size
    rows, columns = np.indices(size)
    nearest = np.full(size, np.inf)
    labels = np.ones(size, dtype=np.uint16)
    for number, (y, x) in enumerate(points, start=1):
        distance = (rows - y) ** 2 + (columns - x) ** 2
        labels[distance < nearest] = number
        nearest = np.minimum(nearest, distance)
    return labels


if __name__ == "__main__":
    run_script(main)
