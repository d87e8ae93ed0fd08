"""Trains CRT's classifier: a CNN and a DeiT together.

python methods/crt/train_cam.py --name exp                                   VOC 2012, as published
torchrun --nproc_per_node 2 methods/crt/train_cam.py --name exp              two processes, the same global batch
python methods/crt/train_cam.py --name exp --resume                          go on after an interruption
"""

from common.data.dataset import ImageSet
from common.errors import run_script
from common.script import start
from common.trainer import Trainer
from methods.crt.cams import seed_maps
from methods.crt.config import CRTConfig
from methods.crt.losses import LOSS_TERMS, CRTStep
from methods.crt.model import CRT, start_branches
from methods.crt.optim import crt_lr, crt_sgd, parameter_groups
from methods.crt.views import CRTViews


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, CRTConfig, "crt_2022")
    config, device = setup.config, setup.runtime.device
    config.check()

    # Data
    images = ImageSet(config.data, config.train.image_list)

    # Model, losses, optimiser
    model = CRT(config.model, len(images.classes))
    origin = start_branches(model, config.model, setup.args.resume)
    model.to(device)
    trainer = Trainer(
        setup, images, CRTViews(config.views), model, origin, CRTStep(model, config.loss),
        LOSS_TERMS, {}, logits=("cnn", "deit"), optimizer=crt_sgd(parameter_groups(model), config.optim),
        rate=lambda position, steps: crt_lr(position.total_steps, trainer.total_steps, config.optim),
    )  # fmt: skip

    # Training; seeds of the DeiT, as make_cam.py makes them
    return trainer.run(
        losses_of=lambda module, batch: module(*batch.views, batch.labels, batch.epoch),
        validate=lambda: trainer.score_maps(seed_maps(model.deit, config.infer)),
        next_command=f"Seeds: python methods/crt/make_cam.py --name {setup.run.name} --dict",
    )


if __name__ == "__main__":
    run_script(main)
