"""Measures IRN's random walk against the reference's dense matrix powers; prints a Markdown row.

    python methods/irn/benchmark.py                        # an image of 375 x 500: minutes, 2 GB
    python methods/irn/benchmark.py --size 188 250         # a quarter of the cells, 1/64 of the dense work
    python methods/irn/benchmark.py --squarings 1          # the dense time from one squaring of eight; no labels
    python methods/irn/benchmark.py --device cuda

Both start from the same boundaries and seeds of a smooth random field, on as many threads as OMP_NUM_THREADS says, and
end with labels. The dense way builds the matrix, takes its power element by element, divides by column sums and squares
it, as the reference does.
"""

import argparse
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from common.masks.pairs import pair_directions, window
from common.run.errors import run_script
from methods.irn.config import WalkConfig
from methods.irn.paths import path_maximum
from methods.irn.walk import enlarged, grid_size, label_map, walked

CONFIG = WalkConfig()


def main() -> int:
    """Command line → both walks; 1 if a label differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--size", type=int, nargs=2, default=(375, 500), metavar=("H", "W"), help="of the image (default: 375 500)")
    add("--classes", type=int, default=2, help="of the image (default: %(default)s)")
    add("--turns", type=int, default=5, help="timed turns of the sparse walk (default: %(default)s)")
    add("--squarings", type=int, default=CONFIG.log2_rounds, help="that are timed (default: all %(default)s)")
    add("--device", default="cpu", choices=("cpu", "cuda"))
    args = parser.parse_args()
    height, width = args.size
    size = height, width
    edge, scores = (maps.to(args.device) for maps in generated(grid_size(size), args.classes))
    times = []
    for _ in range(1 + args.turns):
        start = clock()
        mask = mask_of(walked(edge, scores, CONFIG), size)
        times.append(clock() - start)
    here = min(times[1:])
    dense, power = squared(transitions(edge), args.squarings)
    is_whole = args.squarings == CONFIG.log2_rounds
    differing = 0
    if is_whole:
        expected = ((scores * (1 - edge)).flatten(1) @ power).view(scores.shape)
        differing = int((mask != mask_of(expected, size)).sum())
    labels = (f"{differing} differ" if differing else "equal") if is_whole else "not compared"
    print("| image | cells | classes | dense squarings (s) | here, path maxima to labels (s) | ratio | labels |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {height} x {width} | {edge.shape[0]} x {edge.shape[1]} | {args.classes} | {dense:.1f} | {here:.3f} | "
        f"{dense / here:.0f} | {labels} |"
    )
    return int(differing > 0)


def generated(cells: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
    """Boundary probabilities (h, w), thin lines on a low ground, and smooth seeds (n, h, w)."""
    rng = torch.Generator().manual_seed(0)
    field = F.interpolate(torch.randn(1, 1, 9, 12, generator=rng), cells, mode="bicubic")[0, 0]
    edge = 0.02 + 0.95 * torch.exp(-((field / 0.12) ** 2)) + 0.02 * torch.rand(cells, generator=rng)
    scores = F.interpolate(torch.rand(1, count, 6, 8, generator=rng), cells, mode="bilinear")[0]
    return edge.clamp(0, 1), (scores - 0.4).clamp(min=0) / 0.6


def transitions(edge: Tensor) -> Tensor:
    """T before it is squared, dense (hw, hw)."""
    height, width = edge.shape
    radius = CONFIG.radius
    reach = radius - 1
    directions = pair_directions(radius)
    around = reach, reach, 0, reach
    affinity = 1 - path_maximum(F.pad(edge, around, value=1.0)[None], directions, radius)[0]
    places = torch.arange(height * width, device=edge.device).view(height, width)
    places = F.pad(places, around, value=-1)
    source = window(places, radius).flatten()
    matrix = torch.eye(height * width, device=edge.device)
    for direction, values in zip(directions, affinity.flatten(1), strict=True):
        other = window(places, radius, direction).flatten()
        inside = other >= 0
        pair = source[inside], other[inside]
        matrix[pair] = matrix[pair[1], pair[0]] = values[inside] ** CONFIG.beta
    return matrix / matrix.sum(0, keepdim=True)


def squared(matrix: Tensor, times: int) -> tuple[float, Tensor]:
    """Seconds of all squarings, by the mean of the timed ones, and the matrix after them."""
    total = 0.0
    for _ in range(times):
        start = clock()
        matrix = matrix @ matrix
        total += clock() - start
    return total / times * CONFIG.log2_rounds, matrix


def mask_of(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """The labels, at the image's size."""
    return torch.from_numpy(label_map(enlarged(scores, size), list(range(len(scores))), CONFIG.background))


def clock() -> float:
    """Seconds, after the GPU has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    run_script(main)
