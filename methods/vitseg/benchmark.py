"""The ViT segmenter's work for ``scripts/benchmark.py``."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.masks.network import segment_logits
from common.masks.options import SegmentViews
from common.nets.options import ViTConfig
from common.nets.timm_models import timms_own
from common.run.device import Runtime
from common.tensors import compiled
from methods.vitseg.config import VitSegModelConfig, VitSegOptimConfig
from methods.vitseg.losses import VitSegStep
from methods.vitseg.model import VitSeg
from methods.vitseg.optim import vitseg_optimizer

LABELS = 21
CROP = 224
TEST_SIZE = (384, 512)
PLAIN_TOKENS = 1  # class token of the plain ViT that it is compared with
TRAIN_PASSES = 1  # plain passes that the method needs for a train step
INFER_PASSES = 1  # and for an image
DECODERS = ("linear", "mask")


def train_steps(
    batch: int, runtime: Runtime, arch: str = ViTConfig.arch
) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """One micro-batch's network and loss with each decoder, on random crops of 224 x 224."""
    images = _images(batch, (CROP, CROP), runtime)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(LABELS, (batch, CROP, CROP), generator=generator).to(runtime.device, torch.uint8)

    def of(decoder: str) -> tuple[nn.Module, Callable[[], Tensor]]:
        step = compiled(VitSegStep(network(runtime, arch, decoder).train()), runtime.config.compile)
        return step, lambda: step(images, labels)["total"]

    return {f"{decoder} decoder": of(decoder) for decoder in DECODERS}


def plain_train_inputs(batch: int, runtime: Runtime) -> list[tuple[Tensor, Tensor]]:
    """Images and class labels of the plain pass that stands against a train step."""
    return [(_images(batch, (CROP, CROP), runtime), torch.ones(batch, LABELS - 1, device=runtime.device))]


def optimizer(step: VitSegStep) -> torch.optim.Optimizer:
    """Of the network in a train step."""
    return vitseg_optimizer(step.model, VitSegOptimConfig())


def infer_work(
    runtime: Runtime, arch: str = ViTConfig.arch
) -> tuple[Callable[[], object], dict[str, Callable[[], object]]]:
    """A plain pass over an image, and the image's labels at its own size."""
    plain = timms_own(f"timm:{arch.removeprefix('timm:')}", img_size=TEST_SIZE, num_classes=LABELS - 1)
    plain = compiled(plain.to(runtime.device).eval(), runtime.config.compile)
    image = _images(1, TEST_SIZE, runtime)
    networks = {
        decoder: compiled(network(runtime, arch, decoder).eval(), runtime.config.compile) for decoder in DECODERS
    }

    @torch.inference_mode()
    def run_plain() -> None:
        with runtime.autocast():
            plain(image)

    def segment(decoder: str) -> None:
        with runtime.autocast():
            segment_logits(
                networks[decoder], image, TEST_SIZE, SegmentViews(scales=[1.0], flip="none", merge="sum")
            ).max(1)

    return run_plain, {f"labels, {decoder} decoder": functools.partial(segment, decoder) for decoder in DECODERS}


def _images(batch: int, size: tuple[int, int], runtime: Runtime) -> Tensor:
    """Random images (B, 3, H, W), the same at every call."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(runtime.device)


def network(runtime: Runtime, arch: str = ViTConfig.arch, decoder: str = "mask") -> VitSeg:
    """The network, with random weights."""
    torch.manual_seed(0)
    config = VitSegModelConfig(arch=arch, img_size=CROP, decoder=decoder)
    config.check()
    return VitSeg(config, LABELS).to(runtime.device)
