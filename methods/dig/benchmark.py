"""DiG's work for ``scripts/benchmark.py``."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.nets.mctformer import classification_loss
from common.nets.options import ViTConfig
from common.run.device import Runtime
from common.tensors import compiled
from methods.dig.config import GuideConfig, LossConfig, UNetConfig
from methods.dig.diffusion import GaussianDiffusion
from methods.dig.diffusion_files import save_diffusion
from methods.dig.guide import Guide
from methods.dig.lfca import FeatureShape
from methods.dig.losses import DiGStep
from methods.dig.model import DiG
from methods.dig.unet import UNet

CLASSES = 20
SIZE = 224
PLAIN_TOKENS = CLASSES  # class tokens of the plain ViT that it is compared with
TRAIN_PASSES = "6 U-Net, 2 ViT and LFCA"  # plain passes that the method needs for a train step
INFER_PASSES = 2  # and for an image
EARLY = 0  # an epoch before the losses that read attention maps
LATE = 10  # and one with them


def train_steps(batch: int, runtime: Runtime) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """One train step's network and total loss, guidance included, in each mode, on random images of 224 x 224."""
    images, labels = random_batch(batch, runtime)
    model = _training_network(runtime).train()
    guide = _guide(runtime)
    steps = {
        merge: compiled(DiGStep(model, LossConfig(merge_passes=merge)), runtime.config.compile)
        for merge in (False, True)
    }

    def total(epoch: int, merge: bool = False) -> Tensor:
        guidance = guide(images, epoch, torch.Generator().manual_seed(0))
        return steps[merge](images, labels, epoch, *guidance)["total"]

    return {
        "all losses": (model, lambda: total(LATE)),
        "all losses, merged passes": (model, lambda: total(LATE, merge=True)),
        "before the CAM losses": (model, lambda: total(EARLY)),
    }


def train_parts(batch: int, runtime: Runtime) -> dict[str, Callable[[], object]]:
    """Parts that are also timed alone: the frozen U-Net's of a train step with all losses."""
    images, _ = random_batch(batch, runtime)
    guide = _guide(runtime)
    return {"of which the U-Net": lambda: guide(images, LATE, torch.Generator().manual_seed(0))}


def plain_train_inputs(batch: int, runtime: Runtime) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels of the plain ViT's passes: one for the images, one for the denoised images."""
    return [random_batch(batch, runtime)] * 2


def extra_plain_train_work(batch: int, runtime: Runtime) -> Callable[[], None]:
    """Further plain work beside a train step: whole U-Net passes for six timesteps, LFCA forward and backward."""
    images, labels = random_batch(batch, runtime)
    model = _training_network(runtime).train()
    unet = UNet(UNetConfig()).requires_grad_(False).eval().to(runtime.device)
    unet = compiled(unet, runtime.config.compile)
    fuse = compiled(model.fuse, runtime.config.compile)
    shape = FeatureShape()
    side = SIZE // 16
    features = torch.randn(batch, shape.timesteps * shape.channels, side, side, device=runtime.device)
    queries = [torch.randn(batch, CLASSES + side**2, model.embed_dim, device=runtime.device) for _ in range(2)]

    def run() -> None:
        model.zero_grad(set_to_none=True)
        with runtime.autocast():
            for t in (0, 1, 2, 3, 4, 100):
                with torch.no_grad():
                    unet(images, torch.full((batch,), t, device=runtime.device))
            fused = fuse(features, queries, (side, side))
            loss = classification_loss(fused.cls, fused.pcls, labels)
        loss.backward()

    return run


def random_batch(batch: int, runtime: Runtime) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, 3, 224, 224) and labels (B, C), the same at every call."""
    images = torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    images, labels = runtime.to_device(images, F.one_hot(torch.arange(batch) % CLASSES, CLASSES).float())
    return images, labels


def network(runtime: Runtime) -> DiG:
    """The network that makes seeds, with random weights."""
    torch.manual_seed(0)
    return DiG(ViTConfig(), CLASSES, None).to(runtime.device)


@functools.lru_cache(maxsize=1)  # nearly 1 GB
def _training_network(runtime: Runtime) -> DiG:
    torch.manual_seed(0)
    return DiG(ViTConfig(), CLASSES).to(runtime.device)


@functools.lru_cache(maxsize=1)
def _guide(runtime: Runtime) -> Guide:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.pt"
        save_diffusion(file, GaussianDiffusion(UNet(UNetConfig())), 0)
        classifier = ViTConfig()
        classifier.check()  # fills in image and patch size
        return Guide(GuideConfig(file=str(file)), UNetConfig(), LossConfig(), classifier, runtime)
