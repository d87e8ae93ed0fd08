"""Trains DiG's diffusion model on the images of a list; labels are not needed.

python methods/dig/train_diffusion.py --name ddpm                            VOC 2012
python methods/dig/train_diffusion.py --name ddpm --exp diffusion_dig_coco   COCO 2014
python methods/dig/train_diffusion.py --name ddpm data.dataset=folder data.root=my_images train.image_list=all
python methods/dig/train_diffusion.py --name ddpm --init pretrained/model-140-pascal.pt   start from a file
torchrun --nproc_per_node 2 methods/dig/train_diffusion.py --name ddpm       two processes, the same global batch
python methods/dig/train_diffusion.py --name ddpm --resume                   go on after an interruption

Every train.save_every steps it writes ckpt/model-N.pt, a file of the released structure for the classifier's
diffusion.file, and previews/STEP.png, a picture of images made from noise.
"""

from common.run.errors import run_script
from common.run.script import start
from methods.dig.config import TIMESTEPS
from methods.dig.diffusion_config import DiffusionConfig


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, DiffusionConfig, "diffusion_dig_voc")
    config, device, processes = setup.config, setup.runtime.device, setup.processes

    import torch

    from common.data.augment import SeparateViews, short_side, square_view
    from common.data.dataset import ImageSet
    from common.run.pool import usable_workers
    from common.train.trainer import Trainer
    from methods.dig.diffusion import GaussianDiffusion
    from methods.dig.diffusion_files import save_diffusion, start_diffusion
    from methods.dig.diffusion_step import DiffusionStep, diffusion_optimizer, draw_noise
    from methods.dig.ema import EMA
    from methods.dig.milestones import classifier_command, draw_loss, milestone_file, save_preview
    from methods.dig.unet import UNet

    # Data: one view of an image, in [0, 1]
    images = ImageSet(config.data, config.train.image_list)
    views = config.views
    if config.train.cache:
        size = images.keep_in_memory(short_side(views.size), usable_workers(config.runtime.num_workers) or 1)
        if processes.is_main:
            print(f"{len(images)} images in memory: {size / 2**20:.0f} MiB a process")
    transform = SeparateViews(square_view(views.size, views.flip))

    # Model, its average, loss, optimiser
    wants_channels_last = device.type == "cuda" and config.train.channels_last
    layout = torch.channels_last if wants_channels_last else torch.preserve_format
    model = GaussianDiffusion(UNet(config.unet), TIMESTEPS)
    model.to(device=device, memory_format=layout)  # type: ignore[call-overload]  # torch takes both together
    origin = start_diffusion(model, config.train.init, setup.args.resume)
    ema = EMA(model, config.ema.decay, config.ema.every, config.ema.after)
    step = DiffusionStep(model)
    optimizer = diffusion_optimizer(model, config.optim)

    # Training, with milestones
    trainer = Trainer(
        setup, images, transform, model, step, origin, parts={"ema": ema}, optimizer=optimizer, rate=config.optim.rate,
        clip=config.optim.clip,
    )  # fmt: skip
    for _ in trainer.epochs():
        for batch in trainer.batches():
            losses = trainer.forward(*batch.views, *draw_noise(batch, processes))
            if not trainer.learn(losses, batch):
                continue
            done = trainer.position.total_steps
            ema.update(done - 1)
            if done % config.train.save_every == 0 or trainer.is_last_step():
                trainer.check()
                if processes.is_main:
                    save_diffusion(milestone_file(setup.run, config, done), model, done, optimizer, ema, trainer.scaler)
                    pictures = filter(None, (save_preview(setup, ema, done), draw_loss(setup.run)))
                    trainer.log.say(f"step {done}, pictures: {', '.join(map(str, pictures)) or 'none'}")
    last = milestone_file(setup.run, config, trainer.total_steps)
    return trainer.close(f"Classifier: {classifier_command(config, last)}")


if __name__ == "__main__":
    run_script(main)
