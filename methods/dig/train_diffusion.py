"""Trains DiG's diffusion model on the images of a list; labels are not needed.

python methods/dig/train_diffusion.py --name ddpm                                VOC 2012
python methods/dig/train_diffusion.py --name ddpm --exp diffusion_dig_coco       COCO 2014
python methods/dig/train_diffusion.py --name ddpm data.dataset=folder data.root=my_images train.image_list=all
python methods/dig/train_diffusion.py --name ddpm --init pretrained/model-140-pascal.pt       start from a file
torchrun --nproc_per_node 2 methods/dig/train_diffusion.py --name ddpm           two processes, the same global batch
python methods/dig/train_diffusion.py --name ddpm --resume                       go on after an interruption

Every train.save_every steps there is a file ckpt/model-N.pt, of the released file's structure, for the classifier's
diffusion.file, and a picture previews/STEP.png of images made from noise.
"""

import json
import math
import shlex

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from common.checkpoint import Position
from common.config import config_path, leaves, load_config
from common.data.dataset import ImageSet
from common.data.loader import shared_generator
from common.data.transforms import SeparateViews, short_side, square_view
from common.dist import Processes
from common.errors import run_script
from common.run import RunFolder
from common.runtime import usable_workers
from common.script import Setup, start
from common.trainer import Batch, Trainer
from common.visual import plot_loss, save_image
from methods.dig.config import DiGConfig
from methods.dig.diffusion import GaussianDiffusion
from methods.dig.diffusion_config import TIMESTEPS, DiffusionConfig
from methods.dig.diffusion_files import load_diffusion, save_diffusion
from methods.dig.ema import EMA
from methods.dig.unet import UNet


def main() -> int:
    """Sets up in the order config, data, model, optimiser; then trains. Returns the exit code."""
    setup = start(__doc__, DiffusionConfig, "diffusion_dig_voc")
    config, device, processes = setup.config, setup.runtime.device, setup.processes
    config.check()

    # Data: one view of an image, in [0, 1]
    images = ImageSet(config.data, config.train.image_list, with_labels=False)
    if config.train.cache:
        size = images.keep_in_memory(short_side(config.views.size), usable_workers(config.runtime.num_workers) or 1)
        if processes.is_main:
            print(f"{len(images)} images in memory: {size / 2**20:.0f} MiB a process")
    transform = SeparateViews(square_view(config.views.size, config.views.flip))

    # Model, its average, optimiser
    diffusion = GaussianDiffusion(UNet(config.unet), TIMESTEPS)
    origin = start_from(diffusion, config.train.init, setup.args.resume)
    on_gpu = device.type == "cuda"
    layout = torch.channels_last if on_gpu and config.train.channels_last else torch.preserve_format
    diffusion.to(device, memory_format=layout)
    ema = EMA(diffusion, config.ema.decay, config.ema.every, config.ema.after)
    optimizer = torch.optim.Adam(
        diffusion.parameters(), config.optim.lr, tuple(config.optim.betas), config.optim.eps, fused=True
    )

    # Training; a milestone now and then
    trainer = Trainer(
        setup, images, transform, diffusion, origin, DiffusionStep(diffusion), (), {"ema": ema}, logits=(),
        optimizer=optimizer, rate=lambda position, steps: config.optim.lr, clip=config.optim.clip,
    )  # fmt: skip

    def after_step(position: Position) -> None:
        ema.update(position.total_steps - 1)
        if position.total_steps % config.train.save_every and position.total_steps != trainer.total_steps:
            return
        trainer.check()
        if processes.is_main:
            path = milestone(setup, position.total_steps)
            save_diffusion(path, diffusion, position.total_steps, optimizer, ema, trainer.scaler)
            save_preview(setup, ema, position.total_steps)
            draw_loss(setup.run)

    return trainer.run(
        losses_of=lambda module, batch: module(*batch.views, *draw_noise(batch, processes)),
        after_step=after_step,
        next_command=f"Classifier: {classifier_command(config, milestone(setup, trainer.total_steps))}",
    )


class DiffusionStep(nn.Module):
    """Model and loss as one module."""

    def __init__(self, diffusion: GaussianDiffusion) -> None:
        super().__init__()
        self.diffusion = diffusion

    def forward(self, images: Tensor, t: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """The loss of images (B, 3, S, S) in [0, 1] at timesteps (B,) with noise (B, 3, S, S)."""
        return {"total": self.diffusion(images, t, noise)}


def start_from(diffusion: GaussianDiffusion, file: str, is_resumed: bool) -> str:
    """Loads the weights to start from, if a training begins with a file; says in words where they come from."""
    if is_resumed:
        return "resumed"
    return str(load_diffusion(diffusion, file)) if file else "random"


def draw_noise(batch: Batch, processes: Processes) -> tuple[Tensor, Tensor]:
    """Timesteps (B,) and normal noise (B, 3, S, S) for this process's part of a micro-batch.

    They are drawn for the whole micro-batch, so that any number of processes, and a resumed run, trains with the same.
    """
    (images,) = batch.views
    size, device = len(images), images.device
    count, own = size * processes.world, slice(size * processes.rank, size * (processes.rank + 1))
    t = torch.randint(TIMESTEPS, (count,), generator=batch.draws)
    seed = int(torch.randint(2**62, (), generator=batch.draws))  # noise is drawn where it is needed: it is much
    generator = torch.Generator(device).manual_seed(seed)
    noise = torch.randn((count, *images.shape[1:]), generator=generator, device=device)
    return t[own].to(device), noise[own]


def milestone(setup: Setup, step: int) -> str:
    """The file of a milestone: number 1 after the first `save_every` steps."""
    return str(setup.run.checkpoints / f"model-{math.ceil(step / setup.config.train.save_every)}.pt")


def classifier_command(config: DiffusionConfig, file: str) -> str:
    """How the classifier is trained with a file; data and network are named where its configuration has others."""
    exp = "dig_coco_eccv24" if config.data.dataset == "coco14" else "dig_eccv24"
    usual = {leaf.key: leaf.default for leaf in leaves(load_config(DiGConfig, config_path(exp)))}
    data, unet = (
        "".join(f" {shlex.quote(f'{leaf.key}={leaf.default}')}" for leaf in part if leaf.default != usual[leaf.key])
        for part in (leaves(config.data, "data."), leaves(config.unet, "unet."))
    )
    return f"python methods/dig/train_trm.py --name NAME --exp {exp}{data} diffusion.file={file}{unet}"


def save_preview(setup: Setup, ema: EMA, step: int) -> None:
    """Makes images from noise by the averaged weights: the same noise every time, so that previews can be compared."""
    config, size = setup.config, setup.config.views.size
    if not config.sampling.images:
        return
    noise = torch.randn((config.sampling.images, 3, size, size), generator=shared_generator(config.runtime.seed))
    at_once = max(config.train.batch_size // (setup.processes.world * config.train.accumulation), 1)
    parts = noise.to(setup.runtime.device).split(at_once)  # no more memory than a training step takes
    images = torch.cat([ema.ema_model.sample(part, config.sampling.steps, "preview") for part in parts])
    grid = make_grid(images.cpu(), nrow=math.ceil(math.sqrt(len(images))))
    save_image(setup.run.path / "previews" / f"{step:06d}.png", to_pil_image(grid))


def draw_loss(run: RunFolder) -> None:
    """Draws the curve of the logged losses into the run folder."""
    lines = map(json.loads, (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    points = [(line["step"], line["total"]) for line in lines if line["kind"] == "train"]
    if points:
        plot_loss(run.path / "loss.png", *zip(*points, strict=True), f"{run.name}: diffusion loss")


if __name__ == "__main__":
    run_script(main)
