"""ToCo's work for ``scripts/benchmark.py``."""

import functools
from collections.abc import Callable, Sequence

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.masks.network import segment_logits
from common.masks.options import SegmentViews
from common.run.device import Runtime
from common.tensors import compiled
from methods.toco.cams import multi_scale_cams
from methods.toco.config import EnergyConfig, LabelConfig, LossConfig, ToCoModelConfig
from methods.toco.labels import most_labels
from methods.toco.model import ToCo
from methods.toco.step import ToCoStep

CLASSES = 20
SIZE = 320
CROP = 96
CROPS = 8
CAM_SIZE = 448
SCALES = (1.0, 0.5, 1.5)
STEP = 10_000  # all losses are on
TRAIN_PASSES = "2 global views, 8 crops and 5 CAM views"  # plain passes that the method needs for a train step
INFER_PASSES = "6 CAM views"  # and for the CAMs of an image


def train_steps(batch: int, runtime: Runtime) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """One train step's network and total loss, all terms on and before the segmentation sets in, on random images."""
    views = [_images(batch, SIZE, seed, runtime) for seed in range(3)]
    labels = _labels(batch, runtime)
    boxes = torch.tensor([[0, SIZE, 0, SIZE]] * batch, device=runtime.device)
    most = most_labels(labels)
    picks = torch.rand(batch, CROPS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = ToCoStep(network(runtime).train(), LossConfig(), LabelConfig(), EnergyConfig(), CROP)
    step = compiled(step, runtime.config.compile)

    def total(number: int) -> Tensor:
        return step(*views, boxes, labels, number, *runtime.to_device(picks), most)["total"]

    numbers = {"all losses": STEP, "before the segmentation": 0}
    return {name: (step, functools.partial(total, number)) for name, number in numbers.items()}


def plain_train_work(batch: int, runtime: Runtime) -> Callable[[], None]:
    """The plain work beside a train step: passes with gradient over global views and crops, without over CAM views."""
    model = _plain(runtime).train()
    labels = _labels(batch, runtime)
    learned = [(_images(2 * batch, SIZE, 0, runtime), 2), (_images(CROPS * batch, CROP, 0, runtime), CROPS)]
    sizes = [SIZE, *(int(scale * SIZE) for scale in SCALES if scale != 1 for _ in range(2))]
    views = [_images(batch, size, 0, runtime) for size in sizes]

    def run() -> None:
        model.zero_grad(set_to_none=True)
        _forward(model, views, runtime)
        for images, repeats in learned:
            with runtime.autocast():
                loss = F.multilabel_soft_margin_loss(model(images).float(), labels.repeat(repeats, 1))
            loss.backward()

    return run


def infer_work(runtime: Runtime) -> tuple[Callable[[], None], dict[str, Callable[[], None]]]:
    """The plain passes over an image's views; its CAMs, and its segmentation, from the same views."""
    model = network(runtime).eval()
    plain = _plain(runtime).eval()
    image = _images(1, CAM_SIZE, 0, runtime)
    views = [_images(1, int(scale * CAM_SIZE), 0, runtime) for scale in SCALES for _ in range(2)]
    cams_of = compiled(model.cams, runtime.config.compile)

    @torch.inference_mode()
    def make_cams() -> None:
        with runtime.autocast():
            multi_scale_cams(cams_of, image, SCALES)

    @torch.inference_mode()
    def segment() -> None:
        with runtime.autocast():
            segment_logits(model.segment, image, (CAM_SIZE, CAM_SIZE), SegmentViews(scales=list(SCALES)))

    return lambda: _forward(plain, views, runtime), {"CAMs": make_cams, "segmentation": segment}


@torch.no_grad()
def _forward(model: nn.Module, views: Sequence[Tensor], runtime: Runtime) -> None:
    for images in views:
        with runtime.autocast():
            model(images)


def _images(batch: int, size: int, seed: int, runtime: Runtime) -> Tensor:
    """Smooth random images (B, 3, size, size) with some noise, the same at every call: their lattice is a photo's."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, 3, 8, 8, generator=generator)
    smooth = F.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)
    return (smooth + 0.05 * torch.randn(batch, 3, size, size, generator=generator)).to(runtime.device)


def _labels(batch: int, runtime: Runtime) -> Tensor:
    """Two classes per image, (B, K)."""
    labels = F.one_hot(torch.arange(batch) % CLASSES, CLASSES) + F.one_hot((torch.arange(batch) + 7) % CLASSES, CLASSES)
    return labels.float().to(runtime.device)


def network(runtime: Runtime) -> ToCo:
    """The network, with random weights."""
    torch.manual_seed(0)
    return ToCo(ToCoModelConfig(arch="deit_small_patch16_224", drop_path=0.0), CLASSES).to(runtime.device)


def _plain(runtime: Runtime) -> nn.Module:
    """timm's DeiT-S with fused attention, for images of any size."""
    model = timm.create_model("deit_small_patch16_224", num_classes=CLASSES, dynamic_img_size=True).to(runtime.device)
    return compiled(model, runtime.config.compile)
