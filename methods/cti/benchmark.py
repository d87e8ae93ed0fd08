"""What ``scripts/benchmark.py`` times of CTI."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from common.cam import multi_view_cams
from common.optim import OptimConfig, adamw
from common.runtime import Runtime
from common.vit import ViTConfig
from methods.cti.losses import CTIStep, LossConfig
from methods.cti.memory import TokenMemory
from methods.cti.model import CTI

CLASSES = 20
PLAIN_TOKENS = CLASSES + 1  # class tokens of the plain ViT that it is compared with
TRAIN_PASSES, INFER_PASSES = 4, 2  # plain passes that the method needs for a train step, and for an image


def train_steps(batch: int, runtime: Runtime) -> dict[str, Callable[[], None]]:
    """One train step (forward, losses, backward; memory full) in each mode, on random images of 224 x 224."""
    view1, view2, labels = random_batch(batch, runtime)
    steps = {
        "exact": _step(LossConfig(skip_idle_cross=False), runtime),
        "shared prefix": _step(LossConfig(share_prefix=True), runtime),
    }
    optimizer = adamw(steps["exact"], OptimConfig(), batch)

    def run(step: torch.nn.Module) -> None:
        step.zero_grad(set_to_none=True)
        with runtime.autocast():
            total = step(view1, view2, labels, 0)["total"]
        total.backward()

    def run_with_optimizer() -> None:
        run(steps["exact"])
        optimizer.step()

    timed = {name: (lambda step=step: run(step)) for name, step in steps.items()}
    return {**timed, "exact, with AdamW": run_with_optimizer}


def plain_train_inputs(batch: int, runtime: Runtime) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels of the plain passes that stand against a train step: view 1 three times, view 2 once."""
    view1, view2, labels = random_batch(batch, runtime)
    return [(view1, labels), (view2, labels), (view1, labels), (view1, labels)]


def random_batch(batch: int, runtime: Runtime) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two views (B, 3, 224, 224) and labels (B, C), the same at every call."""
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(batch, 3, 224, 224, generator=generator) for _ in range(2)]
    labels = F.one_hot(torch.arange(batch) % CLASSES, CLASSES).float()
    return tuple(runtime.to_device(*views, labels))


def _step(config: LossConfig, runtime: Runtime) -> torch.nn.Module:
    torch.manual_seed(0)
    model = CTI(ViTConfig(), CLASSES).to(runtime.device).train()
    memory = TokenMemory(CLASSES, config.memory_size, model.embed_dim, runtime.device)
    memory.counts += config.memory_size
    step = CTIStep(model, config, memory)
    return torch.compile(step) if runtime.config.compile else step


def inference(height: int, width: int, runtime: Runtime) -> dict[str, Callable[[], None]]:
    """Seeds of one image with two labels: image and mirror image, all maps, normalised at full size."""
    torch.manual_seed(0)
    model = CTI(ViTConfig(), CLASSES).to(runtime.device).eval()
    cams_of = model.foreground_maps("rcams")
    cams_of = torch.compile(cams_of) if runtime.config.compile else cams_of
    image, labels = torch.randn(1, 3, height, width, device=runtime.device), torch.zeros(1, CLASSES)
    labels[0, [3, 7]] = 1

    def run() -> None:
        with runtime.autocast():
            multi_view_cams(cams_of, image, labels)

    return {"seeds": run}
