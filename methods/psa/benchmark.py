"""Measures PSA's random walk against the reference's dense matrix powers; prints a Markdown row.

    python methods/psa/benchmark.py                        # an image of 375 x 500, 2^8 rounds
    python methods/psa/benchmark.py --rounds 6 --classes 1
    python methods/psa/benchmark.py --device cuda

Both start from the same affinities of a smooth random field and run alternating in one process; figures are of the
fastest turns. The dense way builds the matrix, takes its power element by element, divides by column sums and squares
it.
"""

import argparse

from common.run.errors import run_script


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

    from methods.psa.dense_walk import STRIDE, dense_walk, fastest, generated, labels, sparse_walk

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


if __name__ == "__main__":
    run_script(main)
