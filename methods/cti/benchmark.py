"""CTI's work for ``scripts/benchmark.py``."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.nets.options import ViTConfig
from common.run.device import Runtime
from common.tensors import compiled
from methods.cti.config import LossConfig
from methods.cti.losses import CTIStep
from methods.cti.memory import TokenMemory
from methods.cti.model import CTI

CLASSES = 20
PLAIN_TOKENS = CLASSES + 1  # class tokens of the plain ViT that it is compared with
TRAIN_PASSES = 4  # plain passes that the method needs for a train step
INFER_PASSES = 2  # and for an image


def train_steps(
    batch: int, runtime: Runtime, arch: str = ViTConfig.arch
) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """One train step's network and total loss (memory full) in each mode, on random images of 224 x 224."""
    view1, view2, labels = random_batch(batch, runtime)
    steps = {
        "exact": _step(LossConfig(skip_idle_cross=False), runtime, arch),
        "shared prefix": _step(LossConfig(share_prefix=True), runtime, arch),
    }

    def total(step: nn.Module) -> Tensor:
        return step(view1, view2, labels, 0)["total"]

    return {name: (step, functools.partial(total, step)) for name, step in steps.items()}


def plain_train_inputs(batch: int, runtime: Runtime) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels of the plain passes that stand against a train step: view 1 three times, view 2 once."""
    view1, view2, labels = random_batch(batch, runtime)
    return [(view1, labels), (view2, labels), (view1, labels), (view1, labels)]


def random_batch(batch: int, runtime: Runtime) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two views (B, 3, 224, 224) and labels (B, C), the same at every call."""
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(batch, 3, 224, 224, generator=generator) for _ in range(2)]
    labels = F.one_hot(torch.arange(batch) % CLASSES, CLASSES).float()
    view1, view2, labels = runtime.to_device(*views, labels)
    return view1, view2, labels


def network(runtime: Runtime, arch: str = ViTConfig.arch) -> CTI:
    """The network, with random weights."""
    torch.manual_seed(0)
    config = ViTConfig(arch=arch, img_size=224)
    config.check()
    return CTI(config, CLASSES).to(runtime.device)


def _step(config: LossConfig, runtime: Runtime, arch: str) -> nn.Module:
    model = network(runtime, arch).train()
    memory = TokenMemory(CLASSES, config.memory_size, model.embed_dim, runtime.device)
    memory.counts += config.memory_size
    return compiled(CTIStep(model, config, memory), runtime.config.compile)
