"""PCSS's work for ``scripts/benchmark.py``."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.nets.options import ViTConfig
from common.run.device import Runtime
from common.tensors import compiled
from methods.pcss.config import FIMConfig, LossConfig
from methods.pcss.fim import block_losses
from methods.pcss.frequency import BlockFilters, block_filters
from methods.pcss.importance import FrequencyImportance
from methods.pcss.losses import PCSSStep
from methods.pcss.model import PCSS

CLASSES = 20
SIZE = 224
PLAIN_TOKENS = CLASSES  # class tokens of the plain ViT that it is compared with
TRAIN_PASSES = 3  # plain passes that the method needs for a train step
INFER_PASSES = 2  # and for an image
EPOCH = 3  # all losses are on


def train_steps(batch: int, runtime: Runtime) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """One train step's network and total loss (all terms on) in each mode, on random images of 224 x 224."""
    images, labels = random_batch(batch, runtime)
    partners = torch.randperm(batch, generator=torch.Generator().manual_seed(0))
    steps = {"exact": _step(LossConfig(), runtime), "shared prefix": _step(LossConfig(share_prefix=True), runtime)}

    def total(step: nn.Module) -> Tensor:
        return step(images, labels, EPOCH, partners)["total"]

    return {name: (step, functools.partial(total, step)) for name, step in steps.items()}


def plain_train_inputs(batch: int, runtime: Runtime) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels of the plain passes that stand against a train step."""
    return [random_batch(batch, runtime)] * TRAIN_PASSES


def random_batch(batch: int, runtime: Runtime) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, 3, 224, 224) and labels (B, C), the same at every call."""
    images = torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    images, labels = runtime.to_device(images, F.one_hot(torch.arange(batch) % CLASSES, CLASSES).float())
    return images, labels


def network(runtime: Runtime) -> PCSS:
    """The network, with random weights."""
    torch.manual_seed(0)
    return PCSS(ViTConfig(), CLASSES).to(runtime.device)


def _step(config: LossConfig, runtime: Runtime) -> nn.Module:
    importance = FrequencyImportance(CLASSES, SIZE, FIMConfig(), runtime.device)
    importance.begin_round(EPOCH - 1)
    importance.add(torch.rand(importance.totals.shape, generator=torch.Generator().manual_seed(0)), 0)
    importance.finish_round()
    return compiled(PCSSStep(network(runtime).train(), config, importance), runtime.config.compile)


def importance_round(images: int, batch: int, runtime: Runtime) -> tuple[list[int], dict[str, Callable[[], object]]]:
    """Frequency importance of some images: the batches of its passes (``batch`` images at most), and the work."""
    model = network(runtime).eval()
    filters = block_filters(SIZE, FIMConfig().block)
    filters = BlockFilters(filters.weights.to(runtime.device), filters.owner.to(runtime.device))
    pixels, labels = random_batch(images, runtime)
    at_once = max(batch // images, 1)
    sizes = [len(weights) * images for weights in filters.weights.split(at_once)]
    return sizes, {"importance": lambda: block_losses(model, pixels, labels, filters, batch, runtime)}
