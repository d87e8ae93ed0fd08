"""Milestones of a diffusion model's training: file, preview, loss curve, and the classifier's command."""

import math
import shlex
from pathlib import Path

import torch
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from common.run.config import config_path, leaves, load_config
from common.run.folder import RunFolder
from common.run.log import read_metrics
from common.run.random import shared_generator
from common.run.script import Setup
from common.visual import plot_loss, save_image
from methods.dig.config import DiGConfig
from methods.dig.diffusion_config import DiffusionConfig
from methods.dig.ema import EMA


def milestone_file(run: RunFolder, config: DiffusionConfig, step: int) -> str:
    """The file of the milestone at a step; number 1 is the milestone after ``save_every`` steps."""
    return str(run.checkpoints / f"model-{math.ceil(step / config.train.save_every)}.pt")


def classifier_command(config: DiffusionConfig, file: str) -> str:
    """The command that trains the classifier with a file; it names data and network that differ from its YAML."""
    exp = "dig_coco_eccv24" if config.data.dataset == "coco14" else "dig_eccv24"
    usual = {leaf.key: leaf.default for leaf in leaves(load_config(DiGConfig, config_path(exp)))}
    data, unet = (
        "".join(f" {shlex.quote(f'{leaf.key}={leaf.default}')}" for leaf in part if leaf.default != usual[leaf.key])
        for part in (leaves(config.data, "data."), leaves(config.unet, "unet."))
    )
    return f"python methods/dig/train_trm.py --name NAME --exp {exp}{data} diffusion.file={file}{unet}"


def save_preview(setup: Setup, ema: EMA, step: int) -> Path | None:
    """Draws images made by the averaged weights, always from the same noise, so that previews can be compared.

    Returns:
        The picture; None without ``sampling.images``.
    """
    config = setup.config
    size = config.views.size
    if not config.sampling.images:
        return None
    noise = torch.randn((config.sampling.images, 3, size, size), generator=shared_generator(config.runtime.seed))
    at_once = max(config.train.batch_size // (setup.processes.world * config.train.accumulation), 1)
    parts = noise.to(setup.runtime.device).split(at_once)  # no more memory than a training step takes
    images = torch.cat([ema.ema_model.sample(part, config.sampling.steps, "preview") for part in parts])
    grid = make_grid(images.cpu(), nrow=math.ceil(math.sqrt(len(images))))
    path = setup.run.previews / f"{step:06d}.png"
    save_image(path, to_pil_image(grid))
    return path


def draw_loss(run: RunFolder) -> Path | None:
    """Draws the curve of the logged losses into the run folder.

    Returns:
        The picture; None before the first line of the log.
    """
    lines = read_metrics(run.metrics)
    points = [(line["step"], line["total"]) for line in lines if line.get("kind") == "train" and "total" in line]
    if not points:
        return None
    path = run.path / "loss.png"
    steps, losses = zip(*points, strict=True)
    plot_loss(path, steps, losses, f"{run.name}: diffusion loss")
    return path
