"""DeepLab's work for ``scripts/benchmark.py``."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet101

from common.masks.network import segment_logits
from common.masks.options import SegmentViews
from common.run.device import Runtime
from common.tensors import compiled
from methods.deeplab.config import DeepLabModelConfig, DeepLabOptimConfig
from methods.deeplab.losses import DeepLabStep
from methods.deeplab.model import DeepLab
from methods.deeplab.optim import deeplab_optimizer

LABELS = 21
CROP = 321
TEST_SIZE = (375, 500)
SCALES = 1.0, *DeepLabModelConfig().scales
TRAIN_PASSES = "3 ResNet"  # plain passes that the method needs for a train step, one per scale
INFER_PASSES = "3 ResNet"  # and for an image


def train_steps(batch: int, runtime: Runtime) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """One micro-batch's network and total loss, on random crops of 321 x 321."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(LABELS, (batch, CROP, CROP), generator=generator).to(runtime.device, torch.uint8)
    images = _images(batch, (CROP, CROP), runtime)
    step = compiled(DeepLabStep(network(runtime).train()), runtime.config.compile)
    return {"all losses": (step, lambda: step(images, labels)["total"])}


def optimizer(step: DeepLabStep) -> torch.optim.Optimizer:
    """Of the network in a train step."""
    return deeplab_optimizer(step.model, DeepLabOptimConfig())


def plain_train_work(batch: int, runtime: Runtime) -> Callable[[], None]:
    """The plain work beside a train step: torchvision's dilated ResNet forward and backward, on every scale."""
    model = _plain(runtime)
    labels = torch.ones(batch, LABELS, device=runtime.device)
    views = [_images(batch, size, runtime) for size in _sizes((CROP, CROP))]

    def run() -> None:
        model.zero_grad(set_to_none=True)
        for images in views:
            with runtime.autocast():
                loss = F.multilabel_soft_margin_loss(model(images).float(), labels)
            loss.backward()

    return run


def infer_work(runtime: Runtime) -> tuple[Callable[[], None], dict[str, Callable[[], None]]]:
    """The plain passes over an image's scales, and the image's labels at its own size."""
    logits_of = compiled(network(runtime).eval(), runtime.config.compile)
    plain = _plain(runtime)
    image = _images(1, TEST_SIZE, runtime)
    views = [_images(1, size, runtime) for size in _sizes(TEST_SIZE)]

    @torch.inference_mode()
    def run_plain() -> None:
        for images in views:
            with runtime.autocast():
                plain(images)

    def segment() -> None:
        with runtime.autocast():
            segment_logits(logits_of, image, TEST_SIZE, SegmentViews(scales=[1.0], flip="none")).argmax(1)

    return run_plain, {"labels": segment}


def _sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    height, width = size
    return [(int(height * scale), int(width * scale)) for scale in SCALES]


def _images(batch: int, size: tuple[int, int], runtime: Runtime) -> Tensor:
    """Random images (B, 3, H, W), the same at every call."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(runtime.device)


def network(runtime: Runtime) -> DeepLab:
    """The network, with random weights."""
    torch.manual_seed(0)
    return DeepLab(DeepLabModelConfig(), LABELS).to(runtime.device)


def _plain(runtime: Runtime) -> nn.Module:
    """torchvision's ResNet-101 of stride 8, its norms by their statistics."""
    model = resnet101(num_classes=LABELS, replace_stride_with_dilation=[False, True, True]).to(runtime.device).eval()
    return compiled(model, runtime.config.compile)
