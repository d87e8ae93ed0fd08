"""What ``scripts/benchmark.py`` times of PCSS."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from common.cam import multi_view_cams
from common.optim import OptimConfig, adamw
from common.runtime import Runtime
from common.vit import ViTConfig
from methods.pcss.fim import block_losses
from methods.pcss.frequency import BlockFilters, block_filters
from methods.pcss.importance import FIMConfig, FrequencyImportance
from methods.pcss.losses import LossConfig, PCSSStep
from methods.pcss.model import PCSS

CLASSES, SIZE = 20, 224
PLAIN_TOKENS = CLASSES  # class tokens of the plain ViT that it is compared with
TRAIN_PASSES, INFER_PASSES = 3, 2  # plain passes that the method needs for a train step, and for an image
EPOCH = 3  # all losses are on


def train_steps(batch: int, runtime: Runtime) -> dict[str, Callable[[], None]]:
    """One train step (forward, losses, backward) in each mode, on random images of 224 x 224."""
    images, labels = random_batch(batch, runtime)
    partners = torch.randperm(batch, generator=torch.Generator().manual_seed(0))
    steps = {"exact": _step(LossConfig(), runtime), "shared prefix": _step(LossConfig(share_prefix=True), runtime)}
    optimizer = adamw(steps["exact"], OptimConfig(), batch)

    def run(step: torch.nn.Module) -> None:
        step.zero_grad(set_to_none=True)
        with runtime.autocast():
            total = step(images, labels, EPOCH, partners)["total"]
        total.backward()

    def run_with_optimizer() -> None:
        run(steps["exact"])
        optimizer.step()

    timed = {name: (lambda step=step: run(step)) for name, step in steps.items()}
    return {**timed, "exact, with AdamW": run_with_optimizer}


def plain_train_inputs(batch: int, runtime: Runtime) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels of the plain passes that stand against a train step."""
    return [random_batch(batch, runtime)] * TRAIN_PASSES


def random_batch(batch: int, runtime: Runtime) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, 3, 224, 224) and labels (B, C), the same at every call."""
    images = torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return tuple(runtime.to_device(images, F.one_hot(torch.arange(batch) % CLASSES, CLASSES).float()))


def _model(runtime: Runtime) -> PCSS:
    torch.manual_seed(0)
    return PCSS(ViTConfig(), CLASSES).to(runtime.device)


def _step(config: LossConfig, runtime: Runtime) -> torch.nn.Module:
    importance = FrequencyImportance(CLASSES, SIZE, FIMConfig(), runtime.device)
    importance.begin_round(EPOCH - 1)
    importance.add(torch.rand(importance.totals.shape, generator=torch.Generator().manual_seed(0)), 0)
    importance.finish_round()
    step = PCSSStep(_model(runtime).train(), config, importance)
    return torch.compile(step) if runtime.config.compile else step


def inference(height: int, width: int, runtime: Runtime) -> dict[str, Callable[[], None]]:
    """Seeds of one image with two labels: image and mirror image, all maps, normalised at full size."""
    cams_of = _model(runtime).eval().foreground_maps("rcams")
    cams_of = torch.compile(cams_of) if runtime.config.compile else cams_of
    image, labels = torch.randn(1, 3, height, width, device=runtime.device), torch.zeros(1, CLASSES)
    labels[0, [3, 7]] = 1

    def run() -> None:
        with runtime.autocast():
            multi_view_cams(cams_of, image, labels)

    return {"seeds": run}


def importance_round(images: int, batch: int, runtime: Runtime) -> tuple[list[int], dict[str, Callable[[], None]]]:
    """Frequency importance of some images: the batches of its passes (``batch`` images at most), and the work."""
    model, filters = _model(runtime).eval(), block_filters(SIZE, FIMConfig().block)
    filters = BlockFilters(filters.weights.to(runtime.device), filters.owner.to(runtime.device))
    pixels, labels = random_batch(images, runtime)
    at_once = max(batch // images, 1)
    sizes = [len(weights) * images for weights in filters.weights.split(at_once)]
    return sizes, {"importance": lambda: block_losses(model, pixels, labels, filters, batch, runtime)}
