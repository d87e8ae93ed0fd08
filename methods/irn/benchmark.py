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

from common.run.errors import run_script
from methods.irn.config import WalkConfig

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

    from methods.irn.dense_walk import clock, generated, mask_of, squared, transitions
    from methods.irn.walk import grid_size, walked

    height, width = args.size
    size = height, width
    edge, scores = (maps.to(args.device) for maps in generated(grid_size(size), args.classes))
    times = []
    for _ in range(1 + args.turns):
        start = clock()
        mask = mask_of(walked(edge, scores, CONFIG), size, CONFIG)
        times.append(clock() - start)
    here = min(times[1:])
    mean, power = squared(transitions(edge, CONFIG), args.squarings)
    dense = mean * CONFIG.log2_rounds
    is_whole = args.squarings == CONFIG.log2_rounds
    differing = 0
    if is_whole:
        expected = ((scores * (1 - edge)).flatten(1) @ power).view(scores.shape)
        differing = int((mask != mask_of(expected, size, CONFIG)).sum())
    labels = (f"{differing} differ" if differing else "equal") if is_whole else "not compared"
    print("| image | cells | classes | dense squarings (s) | here, path maxima to labels (s) | ratio | labels |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {height} x {width} | {edge.shape[0]} x {edge.shape[1]} | {args.classes} | {dense:.1f} | {here:.3f} | "
        f"{dense / here:.0f} | {labels} |"
    )
    return int(differing > 0)


if __name__ == "__main__":
    run_script(main)
