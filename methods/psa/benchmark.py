"""Measures PSA's random walk against the reference's dense matrix powers; prints a Markdown row.

    python methods/psa/benchmark.py                        # an image of 375 x 500, 2^8 rounds
    python methods/psa/benchmark.py --rounds 6 --classes 1
    python methods/psa/benchmark.py --device cuda

Both start from the same affinities of a smooth random field and run alternating in one process; figures are of the
fastest turns. The dense way builds the matrix, takes its power element by element, divides by column sums and squares
it.
"""

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from common.masks.pairs import pair_directions, random_walk, window
from common.run.errors import run_script
from methods.psa.affinity import pair_affinity

RADIUS = 5
BETA = 8.0
STRIDE = 8
CHANNELS = 448


def main() -> int:
    """Command line → both walks; 1 if a label differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--size", type=int, nargs=2, default=(375, 500), metavar=("H", "W"), help="of the image (default: 375 500)")
    add("--classes", type=int, default=2, help="of the image (default: %(default)s)")
    add("--rounds", type=int, default=8, help="log2 of the rounds (default: %(default)s)")
    add("--turns", type=int, default=3, help="timed turns, after one that is not (default: %(default)s)")
    add("--device", default="cpu", choices=("cpu", "cuda"))
    args = parser.parse_args()
    height, width = args.size
    cells = -(-height // STRIDE), -(-width // STRIDE)
    affinity, scores = (maps.to(args.device) for maps in generated(cells, args.classes + 1))
    sparse_s, walked = fastest(lambda: sparse_walk(scores, affinity, args.rounds), args.turns)
    dense_s, expected = fastest(lambda: dense_walk(scores, affinity, args.rounds), args.turns)
    differing = int((labels(walked, height, width) != labels(expected, height, width)).sum())
    print("| image | cells | maps | rounds | dense (ms) | here (ms) | ratio | largest difference | labels |")
    print("|---|---|---|---|---|---|---|---|---|")
    print(
        f"| {height} x {width} | {cells[0]} x {cells[1]} | {len(scores)} | {2**args.rounds} | "
        f"{1000 * dense_s:.0f} | {1000 * sparse_s:.1f} | {dense_s / sparse_s:.0f} | "
        f"{float((walked - expected).abs().max()):.1e} | {f'{differing} differ' if differing else 'equal'} |"
    )
    return int(differing > 0)


def generated(cells: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
    """Affinities (D, h', w') of smooth features with some noise, and smooth scores (n, h, w)."""
    rng = torch.Generator().manual_seed(0)
    features = 2 * F.interpolate(torch.randn(1, CHANNELS, 6, 8, generator=rng), cells, mode="bicubic")
    features += 0.05 * torch.randn(features.shape, generator=rng)
    scores = F.interpolate(torch.rand(1, count, 5, 6, generator=rng), cells, mode="bilinear")[0]
    return pair_affinity(features, pair_directions(RADIUS), RADIUS)[0], scores


def sparse_walk(scores: Tensor, affinity: Tensor, rounds: int) -> Tensor:
    """The walk of this project."""
    return random_walk(scores, affinity, pair_directions(RADIUS), RADIUS, BETA, rounds)


def dense_walk(scores: Tensor, affinity: Tensor, rounds: int) -> Tensor:
    """The walk by squaring a dense matrix (hw, hw)."""
    count, height, width = scores.shape
    places = torch.arange(height * width, device=scores.device).view(height, width)
    source = window(places, RADIUS).flatten()
    matrix = torch.eye(height * width, device=scores.device)
    for direction, values in zip(pair_directions(RADIUS), affinity.flatten(1), strict=True):
        other = window(places, RADIUS, direction).flatten()
        matrix[source, other] = matrix[other, source] = values
    matrix = matrix**BETA
    matrix /= matrix.sum(0, keepdim=True)
    for _ in range(rounds):
        matrix = matrix @ matrix
    return (scores.flatten(1) @ matrix).view(count, height, width)


def labels(scores: Tensor, height: int, width: int) -> Tensor:
    """The largest score's label at the image's size."""
    full = F.interpolate(scores[None], scale_factor=STRIDE, mode="bilinear", align_corners=False)[0]
    return full[:, :height, :width].argmax(0)


def fastest(work: Callable[[], Tensor], turns: int) -> tuple[float, Tensor]:
    """Seconds of the fastest turn after a first one, and the result."""
    result = work()
    times = []
    for _ in range(turns):
        start = time.perf_counter()
        result = work()
        if result.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times), result


if __name__ == "__main__":
    run_script(main)
