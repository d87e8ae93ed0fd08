"""CRT's work for ``scripts/benchmark.py``."""

import functools
from collections.abc import Callable

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet152

from common.nets.tiles import cut_tiles
from common.run.device import Runtime
from common.tensors import compiled
from methods.crt.cams import crt_cams, padded_views
from methods.crt.config import CRTInferConfig, CRTModelConfig, CRTOptimConfig, LossConfig
from methods.crt.losses import CRTStep
from methods.crt.model import CRT
from methods.crt.optim import crt_optimizer

CLASSES = 20
TILE = 224
CROP = 336
CPU_SIZE = (112, 150)  # of the inferred image: 24 tiles
GPU_SIZE = (375, 500)  # 306 tiles
TRAIN_PASSES = "3 DeiT and 1 ResNet"  # plain passes that the method needs for a train step: of tiles and of crops
INFER_PASSES = "3 DeiT"  # and for the CAMs of an image: of all tiles


def train_steps(batch: int, runtime: Runtime) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """One train step's network and total loss, in the first epoch and in later ones, on random crops of 336 x 336."""
    images = _images(batch, (CROP, CROP), runtime)
    labels = _labels(batch, runtime)
    config = LossConfig()
    step = compiled(CRTStep(_network(runtime).train(), config), runtime.config.compile)
    epochs = {"all losses": config.consistency_from, "without the consistency loss": 0}

    def total(epoch: int) -> Tensor:
        return step(images, labels, epoch)["total"]

    return {name: (step, functools.partial(total, epoch)) for name, epoch in epochs.items()}


def optimizer(step: CRTStep) -> torch.optim.Optimizer:
    """Of the networks in a train step."""
    return crt_optimizer(step.model, CRTOptimConfig())


def plain_train_work(batch: int, runtime: Runtime) -> Callable[[], None]:
    """The plain work beside a train step: as many passes of plain networks over the same tiles and crops.

    The ResNet's layers that CRT does not train are not trained here, either.
    """
    images = _images(batch, (CROP, CROP), runtime)
    labels = _labels(batch, runtime)
    tiles = cut_tiles(images, TILE)
    deit = _plain_deit(runtime).train()
    cnn = _plain_cnn(runtime)
    inputs = [(cnn, images), *[(deit, tiles)] * CRTModelConfig().passes]

    def run() -> None:
        for model in (deit, cnn):
            model.zero_grad(set_to_none=True)
        for model, pixels in inputs:
            with runtime.autocast():
                logits = model(pixels).float()
                loss = F.multilabel_soft_margin_loss(logits, labels.repeat(len(pixels) // batch, 1))
            loss.backward()

    return run


def infer_work(runtime: Runtime) -> tuple[Callable[[], None], dict[str, Callable[[], None]]]:
    """The plain passes over an image's tiles; its CAMs at both sizes, from its views."""
    config = CRTInferConfig()
    passes = CRTModelConfig().passes
    size = GPU_SIZE if runtime.device.type == "cuda" else CPU_SIZE
    pixels = np.random.default_rng(0).integers(256, size=(*size, 3), dtype=np.uint8)
    views = [view[None].to(runtime.device) for view in config.transform()(Image.fromarray(pixels))]
    tiles = torch.cat([cut_tiles(padded, TILE) for padded in padded_views(views[1:], TILE, config.flip)])
    model = _network(runtime).deit.eval()
    plain = _plain_deit(runtime).eval()

    @torch.inference_mode()
    def run_plain() -> None:
        for part in tiles.split(config.tiles_on(runtime.device)):
            for _ in range(passes):
                with runtime.autocast():
                    plain(part)

    def make_cams() -> None:
        with runtime.autocast():
            crt_cams(model, views, _labels(1, runtime), config)

    return run_plain, {"CAMs": make_cams}


def _images(batch: int, size: tuple[int, int], runtime: Runtime) -> Tensor:
    """Random images (B, 3, H, W), the same at every call."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(runtime.device)


def _labels(batch: int, runtime: Runtime) -> Tensor:
    """Two classes per image, (B, K)."""
    labels = F.one_hot(torch.arange(batch) % CLASSES, CLASSES) + F.one_hot((torch.arange(batch) + 7) % CLASSES, CLASSES)
    return labels.float().to(runtime.device)


def _network(runtime: Runtime) -> CRT:
    """Both networks, with random weights."""
    torch.manual_seed(0)
    return CRT(CRTModelConfig(), CLASSES).to(runtime.device)


def _plain_deit(runtime: Runtime) -> nn.Module:
    """timm's DeiT-S with fused attention."""
    model = timm.create_model("deit_small_patch16_224", num_classes=CLASSES).to(runtime.device)
    return compiled(model, runtime.config.compile)


def _plain_cnn(runtime: Runtime) -> nn.Module:
    """torchvision's ResNet-152 of stride 16, its norms by their statistics."""
    model = resnet152(num_classes=CLASSES).eval()
    for part in (model.conv1, model.bn1, model.layer1, model.layer2):
        part.requires_grad_(False)
    for convolution in (model.layer4[0].conv2, model.layer4[0].downsample[0]):
        convolution.stride = (1, 1)
    return compiled(model.to(runtime.device), runtime.config.compile)
