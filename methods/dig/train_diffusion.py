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
    from methods.dig.diffusion_step import DiffusionStep, draw_noise
    from methods.dig.ema import EMA
    from methods.dig.milestones import classifier_command, draw_loss, milestone_file, save_preview
    from methods.dig.unet import UNet

    # Data: one view of an image, in [0, 1]
    images, views = ImageSet(config.data, config.train.image_list), config.views
    if config.train.cache:
        size = images.keep_in_memory(short_side(views.size), usable_workers(config.runtime.num_workers) or 1)
        if processes.is_main:
            print(f"{len(images)} images in memory: {size / 2**20:.0f} MiB a process")
    transform = SeparateViews(square_view(views.size, views.flip))

    # Model, its average, optimiser
    model = GaussianDiffusion(UNet(config.unet), TIMESTEPS)
    origin = "resumed" if setup.args.resume else start_diffusion(model, config.train.init)
    wants_channels_last = device.type == "cuda" and config.train.channels_last
    layout = torch.channels_last if wants_channels_last else torch.preserve_format
    model.to(device=device, memory_format=layout)  # type: ignore[call-overload]  # torch takes both together
    ema = EMA(model, config.ema.decay, config.ema.every, config.ema.after)
    step, optim = DiffusionStep(model), config.optim
    optimizer = torch.optim.Adam(model.parameters(), optim.lr, (optim.betas[0], optim.betas[1]), optim.eps, fused=True)

    # Training; a milestone now and then
    trainer = Trainer(
        setup, images, transform, model, step, origin, parts={"ema": ema}, optimizer=optimizer, rate=optim.rate,
        clip=optim.clip,
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
                    save_preview(setup, ema, done)
                    draw_loss(setup.run)
    last = milestone_file(setup.run, config, trainer.total_steps)
    return trainer.close(f"Classifier: {classifier_command(config, last)}")


if __name__ == "__main__":
    run_script(main)
