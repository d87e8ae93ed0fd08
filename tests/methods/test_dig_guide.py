"""Laws of DiG's guidance by the frozen diffusion model. (Numbers are compared in tests/golden.)"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from common.nets.options import ViTConfig
from common.run.device import Runtime
from common.run.errors import UserError
from common.run.options import RuntimeConfig
from common.run.processes import Processes
from methods.dig.config import GuideConfig, LossConfig, UNetConfig
from methods.dig.guide import Guide, feature_shape
from methods.dig.model import DiG
from tests.experiments import TINY_OF

VIT = ViTConfig(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, drop_path=0.0)
UNET = UNetConfig(**TINY_OF["dig"]["unet"])
CLASSES = 3
pytestmark = pytest.mark.usefixtures("one_thread")


def normal(*shape: int, seed: int = 1) -> Tensor:
    """Seeded normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def guide_of(
    file: Path | str, losses: LossConfig | None = None, rank: int = 0, world: int = 1, **config: object
) -> Guide:
    """A guide of one of several processes."""
    runtime = Runtime(RuntimeConfig(device="cpu"), Processes())
    runtime.processes = replace(runtime.processes, rank=rank, world=world)
    return Guide(
        GuideConfig(file=str(file), feature_timesteps=[0, 3], **config),
        UNET,
        losses or LossConfig(cam_start_epoch=1),
        VIT,
        runtime,
    )


def draws(seed: int = 4) -> torch.Generator:
    """The generator of a micro-batch."""
    return torch.Generator().manual_seed(seed)


def test_guidance(diffusion_file: Path) -> None:
    """Shapes for LFCA, denoised images near the images; the model is frozen, and its origin is told."""
    guide, images = guide_of(diffusion_file), normal(2, 3, 32, 32).clamp(-1, 1)
    shape = feature_shape(guide.config, UNET)
    features, denoised = guide(images, 1, draws())
    assert shape == (2, sum(UNET.tap_channels)) and features.shape == (2, shape.timesteps * shape.channels, 4, 4)
    assert denoised.shape == images.shape and not features.requires_grad and not denoised.requires_grad
    assert not any(parameter.requires_grad for parameter in guide.diffusion.parameters())
    assert not guide.diffusion.training and "step 7" in guide.source
    DiG(VIT, CLASSES, shape).fuse(features, [normal(2, 19, 32)] * 2, (4, 4)).cls.sum().backward()


def test_noise_is_the_same_for_any_number_of_processes(diffusion_file: Path) -> None:
    """Every image and timestep gets its own; the parts of two processes are one process's; draws decide."""
    images = normal(4, 3, 32, 32)
    whole = guide_of(diffusion_file)(images, 1, draws())
    parts = [
        guide_of(diffusion_file, rank=rank, world=2)(part, 1, draws()) for rank, part in enumerate(images.split(2))
    ]
    for one, both in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(one, torch.cat(both), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole.denoised, guide_of(diffusion_file)(images, 1, draws(5)).denoised)
    same = guide_of(diffusion_file)(images[:1].expand(4, -1, -1, -1), 1, draws()).denoised
    assert (same[1:] - same[0]).abs().amax((1, 2, 3)).min() > 1e-3


def test_the_memory_limit_changes_nothing(diffusion_file: Path) -> None:
    """Chunks of any size give the same guidance."""
    images = normal(2, 3, 32, 32)
    whole, rows = (guide_of(diffusion_file, max_rows=size)(images, 1, draws()) for size in (0, 1))
    for one, other in zip(whole, rows, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_only_what_the_losses_read_is_computed(diffusion_file: Path) -> None:
    """By weights and epoch."""
    images = normal(1, 3, 32, 32)
    for weights, early, late in (
        ([1, 1, 0, 0, 0], (True, False), (True, False)), ([1, 0, 1, 0, 1], (False, False), (True, True)),
        ([1, 0, 0, 1, 0], (False, True), (False, True)),
    ):  # fmt: skip
        guide = guide_of(diffusion_file, LossConfig(weights, cam_start_epoch=1))
        for epoch, expected in enumerate((early, late)):
            assert tuple(part is not None for part in guide(images, epoch, draws())) == expected


def test_a_missing_diffusion_model() -> None:
    """The message names the three ways out; without losses that need one no file is looked for."""
    with pytest.raises(UserError, match=r"(?s)nowhere.pt.*model-140-pascal.*train_diffusion.py.*weights=\[1,0,0,0,0\]"):
        guide_of("nowhere.pt")
    guide = guide_of("nowhere.pt", LossConfig([1, 0, 0, 0, 0]))
    assert guide(normal(1, 3, 32, 32), 20, draws()) == (None, None) and guide.diffusion is None


def test_an_image_size_that_does_not_suit_the_diffusion_network(diffusion_file: Path) -> None:
    """Is refused before anything is loaded."""
    runtime = Runtime(RuntimeConfig(device="cpu"), Processes())
    odd = replace(VIT, img_size=27, patch_size=9)
    with pytest.raises(UserError, match=r"img_size=27.*multiples of 2"):
        Guide(GuideConfig(file=str(diffusion_file)), UNET, LossConfig(), odd, runtime)
