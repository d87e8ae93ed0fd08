"""DiG's training step for ``scripts/plan.py``."""

import torch

from common.train.cost import StepWork, random_batch
from methods.dig.config import TIMESTEPS, DiGConfig
from methods.dig.diffusion import GaussianDiffusion
from methods.dig.guide import MAP_VALUES, feature_shape
from methods.dig.losses import DiGStep
from methods.dig.model import DiG
from methods.dig.unet import UNet


def step_work(config: DiGConfig, classes: int, images: int) -> StepWork:
    """The step on ``images`` images with all losses on, and before it the frozen diffusion model's passes."""
    size = config.model.img_size
    epoch = config.train.epochs
    shape = feature_shape(config.diffusion, config.unet) if config.loss.has_lfca() else None
    model = DiG(config.model, classes, shape).train()
    step = DiGStep(model, config.loss)
    views, labels = random_batch(images, size, classes)
    if not config.loss.uses_diffusion():
        return StepWork(lambda: step(views, labels, epoch)["total"], model)

    diffusion = GaussianDiffusion(UNet(config.unet), TIMESTEPS).requires_grad_(False).eval()
    timesteps = config.diffusion.feature_timesteps if config.loss.uses_features(epoch) else []
    denoise = config.diffusion.denoise_timestep if config.loss.uses_denoised(epoch) else None
    side = size // config.model.patch_size
    noise = [torch.randn_like(views) for _ in range(len(timesteps) + (denoise is not None))]
    rows = config.diffusion.max_rows or max(MAP_VALUES // (config.unet.dim * size**2), 1)
    features = None
    if timesteps and shape is not None:
        features = torch.randn(images, shape.timesteps * shape.channels, side, side)
    denoised = None if denoise is None else views.clone()
    return StepWork(
        lambda: step(views, labels, epoch, features, denoised)["total"], model, (diffusion,),
        before=lambda: diffusion.guide(views, (side, side), timesteps, denoise, noise, rows),
    )  # fmt: skip
