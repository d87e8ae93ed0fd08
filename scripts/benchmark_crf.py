"""Measures the permutohedral lattice and the dense CRF on it against the package pydensecrf; prints Markdown rows.

    python scripts/benchmark_crf.py lattice                # build and filter, against the package's
    python scripts/benchmark_crf.py crf                    # images/s of both backends, share of equal labels
    python scripts/benchmark_crf.py crf --device cuda      # the lattice on a GPU
    python scripts/benchmark_crf.py pool --workers 2       # images/s of the process pool against a plain loop

Both sides run alternating in the same process; figures and ratios are of the fastest turns. The package uses one
thread; for the lattice see ``--threads``.
"""

import argparse
import functools
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np

from common.crf.options import CRFConfig
from common.data.images import read_image
from common.run.errors import run_script

if TYPE_CHECKING:
    import torch

    from common.crf.lattice import Lattice

LATTICE_CASES = ((21, 224, 224), (81, 224, 224), (21, 375, 500))  # VOC and COCO in training; VOC at full size
CRF_LABELS = (21, 3)
CRF_SIZE = (375, 500)
SIGMA_XY = 50.0  # of ToCo's energy loss, in pixels of the halved image
SIGMA_RGB = 15.0

T = TypeVar("T")


def main() -> int:
    """Command line → the chosen benchmark; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    add_command(commands.add_parser("lattice", help="build and filter"), run_lattice, turns=5)
    add_command(commands.add_parser("crf", help="the backends of the dense CRF"), run_crf, turns=2)
    pool = commands.add_parser("pool", help="the pool of processes that all scripts compute CRFs in")
    add_command(pool, run_pool, turns=2)
    pool.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    pool.add_argument("--images", type=int, default=16, help="of a turn (default: %(default)s)")
    args = parser.parse_args()

    import torch

    torch.set_num_threads(args.threads or torch.get_num_threads())
    return args.run(args)


def add_command(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], turns: int) -> None:
    """Arguments of all commands."""
    add = parser.add_argument
    add("--device", default="cpu", choices=("cpu", "cuda"), help="of the lattice (default: %(default)s)")
    add("--threads", type=int, default=0, help="of the lattice (default: as many as PyTorch takes)")
    add("--turns", type=int, default=turns, help="timed turns, after one that is not (default: %(default)s)")
    add("--image", type=Path, help="an image file, brought to size (default: generated, smooth with some noise)")
    parser.set_defaults(run=run)


def run_lattice(args: argparse.Namespace) -> int:
    """Both build their lattice of an image and filter the values of all channels.

    The package's filter is timed as an iteration of mean field with one bilateral kernel: a tenth of inference(11)
    less inference(1). Its build holds a pass of one channel for the normalisation.
    """
    import torch

    print(
        "| channels x H x W | vertices | build (ms) | filter (ms) | both (ms) | package: build (ms) | filter (ms) | "
        "ratio of filters | ratio of both |\n|---|---|---|---|---|---|---|---|---|"
    )
    for channels, *size in LATTICE_CASES:
        image = sized_image(args.image, *size)
        logits = np.random.default_rng(0).normal(0, 2, (channels, size[0] * size[1])).astype(np.float32)
        scores = torch.from_numpy(logits).to(args.device).softmax(0).T.contiguous()
        pixels = torch.from_numpy(image).to(args.device).permute(2, 0, 1)
        times: dict[str, list[float]] = defaultdict(list)
        for turn in range(args.turns + 1):
            taken, lattice = timed_lattice(pixels, scores)
            for name, value in (taken | timed_package(image, logits)).items():
                if turn:
                    times[name].append(1000 * value)
        build, filter_, other_build, few, many = (min(values) for values in times.values())
        other_filter = (many - few) / 10
        print(
            f"| {channels} x {size[0]} x {size[1]} | {lattice.num_vertices} | {build:.0f} | {filter_:.0f} | "
            f"{build + filter_:.0f} | {other_build:.0f} | {other_filter:.0f} | {filter_ / other_filter:.2f} | "
            f"{(build + filter_) / (other_build + other_filter):.2f} |"
        )
    return 0


def timed_lattice(pixels: "torch.Tensor", scores: "torch.Tensor") -> tuple[dict[str, float], "Lattice"]:
    """Seconds of build and filter."""
    from common.crf.lattice import Lattice, bilateral_features

    build, lattice = seconds(lambda: Lattice(bilateral_features(pixels, SIGMA_XY, SIGMA_RGB)))
    filter_, _ = seconds(lambda: lattice.filter(scores))
    return {"build": build, "filter": filter_}, lattice


def timed_package(image: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Seconds of the package's build, and of few and many iterations."""
    from common.crf.dense import import_pydensecrf

    crf = import_pydensecrf().DenseCRF2D(image.shape[1], image.shape[0], len(logits))
    crf.setUnaryEnergy(-logits)
    build, _ = seconds(lambda: crf.addPairwiseBilateral(sxy=SIGMA_XY, srgb=SIGMA_RGB, rgbim=image, compat=1))
    few, many = (seconds(functools.partial(crf.inference, count))[0] for count in (1, 11))
    return {"package build": build, "few": few, "many": many}


def run_crf(args: argparse.Namespace) -> int:
    """Ten iterations with the default settings on one image.

    Returns:
        1 if more than one label in a thousand differs.
    """
    from common.crf.dense import dense_crf

    print(
        "| labels x H x W | pydensecrf (images/s) | lattice (images/s) | lattice : pydensecrf | equal labels |\n"
        "|---|---|---|---|---|"
    )
    enough = True
    for labels in CRF_LABELS:
        image = sized_image(args.image, *CRF_SIZE)
        probabilities = generated_probabilities(labels, *CRF_SIZE)
        configs = {"pydensecrf": CRFConfig("pydensecrf"), "lattice": CRFConfig("lattice", args.device)}
        times: dict[str, list[float]] = defaultdict(list)
        found = {}
        for turn in range(args.turns + 1):
            for name, config in configs.items():
                taken, marginals = seconds(functools.partial(dense_crf, image, probabilities, config))
                found[name] = marginals.argmax(0)
                if turn:
                    times[name].append(taken)
        package = min(times["pydensecrf"])
        lattice = min(times["lattice"])
        equal = float((found["pydensecrf"] == found["lattice"]).mean())
        enough &= equal > 0.999
        size = " x ".join(map(str, CRF_SIZE))
        print(f"| {labels} x {size} | {1 / package:.2f} | {1 / lattice:.2f} | {package / lattice:.2f} | {equal:.3%} |")
    return 0 if enough else 1


def run_pool(args: argparse.Namespace) -> int:
    """A loop over pydensecrf in one process against the pool.

    The pool's start is not counted: its rate is of the images and seconds that a longer run has more than a shorter.
    """
    image = sized_image(args.image, *CRF_SIZE)
    print(f"| labels x H x W | loop (images/s) | pool of {args.workers} (images/s) | ratio |\n|---|---|---|---|")
    for labels in CRF_LABELS:
        probabilities = generated_probabilities(labels, *CRF_SIZE)
        loop = []
        pooled = []
        few, many = (
            functools.partial(pool_jobs, args.workers, 2 * args.workers + more, image, probabilities)
            for more in (0, args.images)
        )
        for _ in range(args.turns):
            loop.append(seconds(functools.partial(crf_job, image, probabilities, "pydensecrf"))[0])
            pooled.append((seconds(many)[0] - seconds(few)[0]) / args.images)
        size = " x ".join(map(str, CRF_SIZE))
        rates = 1 / min(loop), 1 / min(pooled)
        print(f"| {labels} x {size} | {rates[0]:.2f} | {rates[1]:.2f} | {rates[1] / rates[0]:.2f} |")
    return 0


def pool_jobs(workers: int, count: int, image: np.ndarray, probabilities: np.ndarray) -> None:
    """Runs ``count`` CRFs in a new pool."""
    from common.crf.dense import crf_pool

    with crf_pool(workers) as pool:
        for _ in range(count):
            pool.submit(crf_job, image, probabilities, "auto")


def crf_job(image: np.ndarray, probabilities: np.ndarray, backend: str) -> None:
    """Computes the labels of an image, and drops them."""
    from common.crf.dense import dense_crf

    dense_crf(image, probabilities, CRFConfig(backend)).argmax(0)


def seconds(work: Callable[[], T]) -> tuple[float, T]:
    """Wall-clock time of one call, and its result."""
    wait()
    start = time.perf_counter()
    result = work()
    wait()
    return time.perf_counter() - start, result


def wait() -> None:
    """Lets the GPU finish."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def sized_image(path: Path | None, height: int, width: int) -> np.ndarray:
    """An image file at this size, or a smooth image with some noise; uint8 (H, W, 3)."""
    if path is not None:
        return cv2.resize(np.array(read_image(path)), (width, height), interpolation=cv2.INTER_AREA)
    rng = np.random.default_rng(0)
    coarse = rng.random((8, 10, 3), dtype=np.float32) * 255
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return (smooth + rng.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)


def generated_probabilities(labels: int, height: int, width: int) -> np.ndarray:
    """Noisy scores of smooth segments after a softmax, float32 (labels, H, W)."""
    import torch

    rng = np.random.default_rng(1)
    planes = []
    for _ in range(labels):
        coarse = rng.normal(0, 3, (6, 8)).astype(np.float32)
        planes.append(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    return torch.from_numpy(np.stack(planes) + rng.normal(0, 1, (labels, height, width))).softmax(0).float().numpy()


if __name__ == "__main__":
    run_script(main)
