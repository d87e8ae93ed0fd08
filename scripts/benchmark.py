"""Measures this repository's claims about speed; every command prints a row of a Markdown table.

    python scripts/benchmark.py evaluation                 # all thresholds in one pass against an argmax for each
    python scripts/benchmark.py loader                     # views as bytes against views that a worker normalises
    python scripts/benchmark.py train --method cti         # a train step against plain ViT passes over the same images
    python scripts/benchmark.py infer --method cti         # the seeds of an image against plain ViT passes
    python scripts/benchmark.py train --method vitseg --arch timm:vit_small_patch16_dinov3   # of timm's same model
    python scripts/benchmark.py fim --method pcss          # frequency importance against the plain passes it needs

Both sides of a comparison run alternating in the same process, as machines are noisy; ratios are of the fastest turns.
"""

import argparse
import functools
import importlib
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import cv2
import numpy as np

from common.data.seeds import Seed
from common.nets.options import TIMM
from common.pipeline.plan import GPUS, gpu
from common.run.errors import UserError, run_script
from common.run.options import PRECISIONS, RuntimeConfig
from common.run.processes import Processes
from common.score.counts import SweepCounts, counts_by_argmax
from common.train.schedule import OptimConfig

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from common.data.loader import TrainViews
    from common.run.device import Runtime

    Views = Callable[[Image.Image], list[torch.Tensor]]

METHODS = ("cti", "pcss", "dig", "toco", "crt", "deeplab", "vitseg")
WITH_ARCH = ("cti", "vitseg")

Work = Callable[[], object]  # timed; its result is dropped


def main() -> int:
    """Command line → the chosen benchmark; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    add_evaluation(commands.add_parser("evaluation", help="threshold sweep of seeds"))
    add_loader(commands.add_parser("loader", help="views of an image: CTI, ToCo, CRT"))
    add_network(commands.add_parser("train", help="train step of a method"), run_train)
    add_network(commands.add_parser("infer", help="seed inference of a method"), run_infer)
    fim = commands.add_parser("fim", help="a round of PCSS's frequency importance")
    add_network(fim, run_fim)
    fim.add_argument("--images", type=int, default=4, help="images of a turn (default: %(default)s)")
    args = parser.parse_args()
    return args.run(args)


def seconds(work: Work) -> float:
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
    num_labels = 21
    thresholds = np.arange(args.thresholds) / 100
    height, width = args.size
    images = [generated_seed(index, height, width, num_labels - 1) for index in range(args.images)]
    subset = images[: args.argmax_images]
    sweep_counts(images[:1], num_labels, thresholds)  # warm-up
    sweep_ms = 1000 * seconds(lambda: sweep_counts(images, num_labels, thresholds)) / len(images)
    part = sweep_counts(subset, num_labels, thresholds)
    slow: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    argmax = seconds(lambda: slow.extend(counts_by_argmax(*image, num_labels, thresholds) for image in subset))
    argmax_ms = 1000 * argmax / len(subset)
    correct, predicted, truth = (sum(counts) for counts in zip(*slow, strict=True))
    equal = all(map(np.array_equal, (part.correct, part.predicted, part.truth), (correct, predicted, truth)))
    size = f"{height}x{width}"
    print(f"{len(images)} generated images of {size} with 1-3 classes, {len(thresholds)} thresholds, one core; the one")
    print(f"pass measured on all, the argmax per threshold on the first {len(subset)}, whose counts are compared.\n")
    print("| one pass (ms/image) | argmax per threshold (ms/image) | ratio | counts |")
    print("|---|---|---|---|")
    print(f"| {sweep_ms:.2f} | {argmax_ms:.0f} | {argmax_ms / sweep_ms:.0f} | {'equal' if equal else 'DIFFERENT'} |")
    return 0 if equal else 1


def sweep_counts(images: Sequence[tuple[Seed, np.ndarray]], num_labels: int, thresholds: np.ndarray) -> SweepCounts:
    """The counts of seeds against their masks at all thresholds, in one pass."""
    counts = SweepCounts(num_labels, thresholds)
    for seed, gt in images:
        counts.add(seed, gt)
    return counts


def generated_seed(index: int, height: int, width: int, num_classes: int) -> tuple[Seed, np.ndarray]:
    """A seed of 1 to 3 classes as networks make them (smooth, normalised, zero over much of the image) and a mask.

    Every fourth image's scores lie exactly on thresholds, so that ties are met.
    """
    rng = np.random.default_rng(index)
    keys = np.sort(rng.choice(num_classes, size=1 + index % 3, replace=False))
    gt = np.zeros((height, width), dtype=np.uint8)
    seed: Seed = {}
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


def add_loader(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``loader``."""
    add = parser.add_argument
    add("--images", type=int, default=48, help="generated images (default: %(default)s)")
    add("--size", type=int, nargs=2, default=(375, 500), metavar=("H", "W"), help="of the images (default: 375 500)")
    add("--turns", type=int, default=5, help="timed turns (default: %(default)s)")
    parser.set_defaults(run=run_loader)


def run_loader(args: argparse.Namespace) -> int:
    """Processor time of a loader worker for an image: decoding, views, batches of 8.

    Returns:
        1 if the views of two ways differ.
    """
    import torch
    from PIL import Image
    from torchvision.transforms import Compose, Normalize, ToTensor

    from common.data.augment import SeparateViews, train_transform
    from common.data.dataset import ImageSet
    from common.data.layout import DataConfig
    from common.data.loader import TrainViews
    from common.data.transforms import IMAGENET_MEAN, IMAGENET_STD, normalised_views

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "images").mkdir()
        for number in range(args.images):
            coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            coarse.resize(args.size[::-1], Image.Resampling.BICUBIC).save(root / "images" / f"{number}.jpg")
        names = root / "list.txt"
        names.write_text("".join(f"{number}\n" for number in range(args.images)))
        images = ImageSet(DataConfig(dataset="folder", root=folder), str(names))
        both = [train_transform(224, [0.3, 1.2], auto_augment=name) for name in ("", "rand-m9-mstd0.5-inc1")]
        as_timm = [Compose([*one.transforms[:-1], ToTensor(), Normalize(IMAGENET_MEAN, IMAGENET_STD)]) for one in both]
        ways = {("CTI", "normalised as timm and torchvision do"): TrainViews(images, SeparateViews(*as_timm), seed=0)}
        own: dict[str, Views] = {"CTI": SeparateViews(*both), **other_views()}
        for name, views in own.items():
            for as_bytes in (False, True):
                way = "bytes" if as_bytes else "normalised by the worker (`runtime.byte_views=false`)"
                ways[name, way] = TrainViews(images, views, 0, as_bytes=as_bytes)
        times: dict[tuple[str, str], list[float]] = defaultdict(list)
        for _ in range(args.turns):
            for key, loaded in ways.items():
                times[key].append(core_ms(loaded, args.images))
        first: dict[str, list[torch.Tensor]] = {}
        differs = False
        for (name, _), loaded in ways.items():
            found = normalised_views(loaded[0, 0][0], 3)
            expected = first.setdefault(name, found)
            differs |= not all(map(torch.equal, expected, found))
    print(f"{args.images} images of {args.size[0]} x {args.size[1]}, {args.turns} turns\n")
    print("| views of | | core-ms an image | times faster |\n|---|---|---|---|")
    slowest: dict[str, float] = {}
    for (name, way), values in times.items():
        base = slowest.setdefault(name, min(values))
        print(f"| {name} | {way} | {min(values):.2f} | {base / min(values):.2f} |")
    print(f"\nthe views {'DIFFER' if differs else 'are equal'}")
    return int(differs)


def other_views() -> "dict[str, Views]":
    """The training views of ToCo, and of CRT for segmentation and for localisation, as published."""
    from methods.crt.config import CRTViewConfig
    from methods.crt.views import CRTViews
    from methods.crt.wsol_config import WSOLViewConfig
    from methods.crt.wsol_views import WSOLViews
    from methods.toco.config import ToCoViewConfig
    from methods.toco.views import ToCoViews

    return {
        "ToCo": ToCoViews(ToCoViewConfig()), "CRT": CRTViews(CRTViewConfig()),
        "CRT on CUB": WSOLViews(WSOLViewConfig(), 224),
    }  # fmt: skip


def core_ms(loaded: "TrainViews", count: int) -> float:
    """Processor time for an image, in batches of 8, in milliseconds."""
    import torch

    start = time.process_time()
    for first in range(0, count, 8):
        parts = [loaded[0, index][0] for index in range(first, min(first + 8, count))]
        for column in zip(*parts, strict=True):
            torch.stack(column)
    return 1000 * (time.process_time() - start) / count


def add_network(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    """Arguments of ``train`` and ``infer``."""
    add = parser.add_argument
    add("--method", choices=METHODS, default="cti")
    add("--arch", default="", help=f"another backbone, timm:NAME, of: {', '.join(WITH_ARCH)}")
    add("--batch", type=int, default=8, help="images of a train step (default: %(default)s)")
    add("--size", type=int, nargs=2, default=(375, 500), metavar=("H", "W"), help="of the image (default: 375 500)")
    add("--turns", type=int, default=7, help="timed turns (default: %(default)s)")
    add("--warmup", type=int, default=2, help="turns before that (default: %(default)s)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add("--precision", default="fp32", choices=PRECISIONS)
    add(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor time, for CPUs that do other work, too"
    )
    add("--compile", action="store_true", help="compile both sides with torch.compile")
    add("--gpu", type=gpu, help=f"adds the share of its peak FLOP/s that is reached: {', '.join(GPUS)} or GB,TFLOPS")
    parser.set_defaults(run=run)


def run_train(args: argparse.Namespace) -> int:
    """Forward, losses and backward of one step, against forward and backward of the plain passes it needs.

    A method that needs other networks besides the ViT gives their plain work as ``extra_plain_train_work``, one whose
    passes are of several sizes all of it as ``plain_train_work``, one that is not trained by AdamW its ``optimizer``,
    and parts of a step that deserve a row of their own as ``train_parts``.
    """
    backbone = _backbone(args)
    from common.train.optim import adamw

    runtime = _runtime(args)
    method = importlib.import_module(f"methods.{args.method}.benchmark")
    is_special = hasattr(method, "plain_train_work")
    plain = method.plain_train_work(args.batch, runtime) if is_special else _plain_train_work(method, args, runtime)
    steps = method.train_steps(args.batch, runtime, **backbone)
    works: dict[str, Work] = {
        name: functools.partial(_train_step, network, loss, runtime) for name, (network, loss) in steps.items()
    }
    first, (network, loss) = next(iter(steps.items()))
    has_own = hasattr(method, "optimizer")
    optimizer = method.optimizer(network) if has_own else adamw(network, OptimConfig(), args.batch)
    works[f"{first}, with {type(optimizer).__name__}"] = functools.partial(
        _train_step, network, loss, runtime, optimizer
    )
    if hasattr(method, "train_parts"):
        works |= method.train_parts(args.batch, runtime)
    _compare(plain, method.TRAIN_PASSES, works, args.batch, args, runtime)
    return 0


def _plain_train_work(method: ModuleType, args: argparse.Namespace, runtime: "Runtime") -> Work:
    """Forward and backward of plain ViTs over the images of a method's passes."""
    import torch.nn.functional as F

    plain = _plain_vit(method.PLAIN_TOKENS, (224, 224), args, runtime).train()
    inputs = method.plain_train_inputs(args.batch, runtime)
    has_more = hasattr(method, "extra_plain_train_work")
    run_more = method.extra_plain_train_work(args.batch, runtime) if has_more else lambda: None

    def run_plain() -> None:
        run_more()
        plain.zero_grad(set_to_none=True)
        for images, labels in inputs:
            with runtime.autocast():
                loss = F.multilabel_soft_margin_loss(plain(images).float(), labels)
            loss.backward()

    return run_plain


def _train_step(
    network: "torch.nn.Module",
    loss: "Callable[[], torch.Tensor]",
    runtime: "Runtime",
    optimizer: "torch.optim.Optimizer | None" = None,
) -> None:
    """Forward, losses and backward; with an optimiser its step, too."""
    network.zero_grad(set_to_none=True)
    with runtime.autocast():
        total = loss()
    total.backward()
    if optimizer is not None:
        optimizer.step()


def run_infer(args: argparse.Namespace) -> int:
    """Seeds of one image, or the method's other inference, against the forward passes it needs."""
    backbone = _backbone(args)
    runtime = _runtime(args)
    method = importlib.import_module(f"methods.{args.method}.benchmark")
    is_special = hasattr(method, "infer_work")
    plain, works = method.infer_work(runtime, **backbone) if is_special else _seed_work(method, args, runtime)
    _compare(plain, method.INFER_PASSES, works, 1, args, runtime)
    return 0


def _seed_work(method: ModuleType, args: argparse.Namespace, runtime: "Runtime") -> tuple[Work, dict[str, Work]]:
    """Two forward passes; seeds of an image with two labels (both views, all maps, normalised at full size)."""
    import torch

    from common.seeds.cam import multi_view
    from common.tensors import compiled

    patch, up = 16, bool(args.arch)  # the plain ViT takes whole patches only; timm's backbones pad images to them
    if args.arch:
        from common.nets.timm_models import facts

        patch = facts(args.arch).patch
    height, width = ((side // patch + (up and side % patch > 0)) * patch for side in args.size)
    plain = _plain_vit(method.PLAIN_TOKENS, (height, width), args, runtime).eval()
    images = torch.randn(1, 3, height, width, device=runtime.device)

    @torch.inference_mode()
    def run_plain() -> None:
        with runtime.autocast():
            plain(images)
            plain(images.flip(-1))

    cams_of = compiled(method.network(runtime, **_backbone(args)).eval().foreground_maps("rcams"), args.compile)
    image = torch.randn(1, 3, *args.size, device=runtime.device)
    labels = torch.zeros(1, method.CLASSES)
    labels[0, [3, 7]] = 1

    def run_seeds() -> None:
        with runtime.autocast():
            multi_view(cams_of)(image, labels)

    return run_plain, {"seeds": run_seeds}


def run_fim(args: argparse.Namespace) -> int:
    """Class losses of some images under all filters, against the forward passes of as many images."""
    import torch

    runtime = _runtime(args)
    method = importlib.import_module(f"methods.{args.method}.benchmark")
    plain = _plain_vit(method.PLAIN_TOKENS, (224, 224), args, runtime).eval()
    images = torch.randn(args.batch, 3, 224, 224, device=runtime.device)
    sizes, works = method.importance_round(args.images, args.batch, runtime)

    @torch.inference_mode()
    def run_plain() -> None:
        with runtime.autocast():
            for size in sizes:
                plain(images[:size])

    _compare(run_plain, sum(sizes), works, args.images, args, runtime)
    return 0


def _runtime(args: argparse.Namespace) -> "Runtime":
    from common.run.device import Runtime

    return Runtime(RuntimeConfig(device=args.device, precision=args.precision, compile=args.compile), Processes())


def _backbone(args: argparse.Namespace) -> dict[str, str]:
    """The backbone as an argument of a method's functions, if one is named.

    Raises:
        UserError: it is none of timm's, or the method's benchmark has one backbone alone.
    """
    if args.arch and (args.method not in WITH_ARCH or not args.arch.startswith(TIMM)):
        raise UserError(f"--arch {args.arch}: {TIMM}NAME, with --method {' or '.join(WITH_ARCH)}")
    return {"arch": args.arch} if args.arch else {}


def _plain_vit(tokens: int, size: tuple[int, int], args: argparse.Namespace, runtime: "Runtime") -> "torch.nn.Module":
    """timm's DeiT-S, or ``--arch``, with the method's number of tokens; fused attention, class logits only."""
    from common.nets.timm_models import timms_own
    from common.tensors import compiled

    model = timms_own(args.arch or f"{TIMM}deit_small_patch16_224", tokens - 1, img_size=size, num_classes=20)
    return compiled(model.to(runtime.device), args.compile)


def _compare(
    plain: Work,
    passes: int | str,
    variants: dict[str, Work],
    images: int,
    args: argparse.Namespace,
    runtime: "Runtime",
) -> None:
    """Runs all alternating, and prints images/s, ratio to the plain passes, and peak memory."""
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    works = {f"{passes} plain passes": plain, **variants}
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(args.turns + args.warmup):
        for name, work in works.items():
            _wait(runtime)
            start = clock()
            work()
            _wait(runtime)
            taken = clock() - start
            if turn >= args.warmup:
                times[name].append(taken)
    base, *_ = times.values()
    shares = dict.fromkeys(works, "") if args.gpu is None else _shares_of_peak(works, times, args)
    title, line = ("", "") if args.gpu is None else (f" share of the peak of {args.gpu.name} |", "---|")
    print(f"{args.method} {args.command}, {images} image(s) a turn, {args.turns} turns on {runtime.describe()}")
    print(f"{args.clock} time{', ' + args.arch if args.arch else ''}\n")
    print(f"| | ms (fastest) | ms (median) | images/s | ratio of fastest | ratio of medians |{title}")
    print(f"|---|---|---|---|---|---|{line}")
    for name, values in times.items():
        fastest = min(values)
        median = statistics.median(values)
        ratios = f"{fastest / min(base):.3f} | {median / statistics.median(base):.3f}"
        print(
            f"| {name} | {1000 * fastest:.1f} | {1000 * median:.1f} | {images / median:.2f} | {ratios} |{shares[name]}"
        )
    print(f"\npeak memory of the process: {_peak_memory(runtime):.2f} GB")


def _shares_of_peak(works: dict[str, Work], times: dict[str, list[float]], args: argparse.Namespace) -> dict[str, str]:
    """A cell of the table for each work: its products' FLOP/s in the fastest turn, as a share of the GPU's peak."""
    from torch.utils.flop_counter import FlopCounterMode

    cells = {}
    for name, work in works.items():
        with FlopCounterMode(display=False) as counter:
            work()
        speed = counter.get_total_flops() / min(times[name])
        cells[name] = f" {speed / args.gpu.peak(args.precision):.1%} |"
    return cells


def _wait(runtime: "Runtime") -> None:
    if runtime.device.type == "cuda":
        import torch

        torch.cuda.synchronize()


def _peak_memory(runtime: "Runtime") -> float:
    if runtime.device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    run_script(main)
