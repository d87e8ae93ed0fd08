"""Trains CRT's classifier: a CNN and a DeiT together.

python methods/crt/train_cam.py --name exp                                   VOC 2012, as published
torchrun --nproc_per_node 2 methods/crt/train_cam.py --name exp              two processes, the same global batch
python methods/crt/train_cam.py --name exp --resume                          go on after an interruption
"""

from common.run.errors import run_script
from common.run.script import start
from methods.crt.config import CRTConfig


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, CRTConfig, "crt_2022")
    config, device = setup.config, setup.runtime.device

    from common.data.dataset import LabelledImages
    from common.train.trainer import Trainer
    from methods.crt.cams import seed_maps
    from methods.crt.losses import CRTStep
    from methods.crt.model import CRT, start_branches
    from methods.crt.optim import crt_optimizer
    from methods.crt.views import CRTViews

    # Data: a random crop of an image
    images = LabelledImages(config.data, config.train.image_list)
    transform = CRTViews(config.views)

    # Model, losses, optimiser
    model = CRT(config.model, len(images.classes)).to(device)
    origin = start_branches(model, config.model, setup.args.resume)
    step = CRTStep(model, config.loss)
    optimizer = crt_optimizer(model, config.optim)

    # Training; validation by the seeds that make_cam.py makes
    trainer = Trainer(setup, images, transform, model, step, origin, optimizer=optimizer, rate=config.optim.rate)
    for _ in trainer.epochs():
        for batch in trainer.batches():
            losses = trainer.forward(*batch.views, batch.labels, batch.epoch)
            trainer.learn(losses, batch)
        if trainer.validation_is_due():
            trainer.record(lambda: trainer.score_maps(seed_maps(model.deit, config.infer)))
    return trainer.close(f"Seeds: python methods/crt/make_cam.py --name {setup.run.name} --dict")


if __name__ == "__main__":
    run_script(main)
