"""Trains the toy's classifier.

python -m tests.toy_method.train_toy --name toy                                        VOC 2012
python -m tests.toy_method.train_toy --name toy --resume                               go on after an interruption
torchrun --nproc_per_node 2 -m tests.toy_method.train_toy --name toy                   two processes
"""

from common.run.errors import run_script
from common.run.script import start
from tests.toy_method.config import ToyConfig


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, ToyConfig, "tests/toy_method/toy.yaml")
    config, device, processes = setup.config, setup.runtime.device, setup.processes

    from common.data.augment import SeparateViews, train_transform
    from common.data.dataset import LabelledImages
    from common.nets.pretrained import start_weights
    from common.train.trainer import Trainer
    from tests.toy_method.losses import Peaks, ToyStep
    from tests.toy_method.model import Toy

    # Data: one view of an image
    images, views = LabelledImages(config.data, config.train.image_list), config.views
    transform = SeparateViews(
        train_transform(config.model.img_size, views.scale, views.interpolation, views.auto_augment)
    )

    # Model, state, losses
    model = Toy(config.model, len(images.classes)).to(device)
    origin = start_weights(model, config.model.arch, config.model.pretrained, setup.args.resume)
    peaks = Peaks(len(images.classes), device)
    step = ToyStep(model, config.loss, peaks, processes.gather_rows)

    # Training
    trainer = Trainer(setup, images, transform, model, step, origin, parts={"peaks": peaks})
    for _ in trainer.epochs():
        for batch in trainer.batches():
            losses = trainer.forward(*batch.views, batch.labels, batch.epoch)
            trainer.learn(losses, batch)
        if trainer.validation_is_due():
            trainer.record(lambda: trainer.score_seeds(model.foreground_maps))
    return trainer.close(f"Seeds: python -m tests.toy_method.infer_toy --name {setup.run.name} --dict")


if __name__ == "__main__":
    run_script(main)
