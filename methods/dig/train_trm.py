"""Trains DiG's classifier, guided by a frozen diffusion model.

python methods/dig/train_trm.py --name exp                                   VOC 2012, as published
python methods/dig/train_trm.py --name exp --exp dig_coco_eccv24             COCO 2014
python methods/dig/train_trm.py --name exp diffusion.file=FILE               with a file of train_diffusion.py
python methods/dig/train_trm.py --name exp --W 1 0 0 0 0                     without any diffusion model
torchrun --nproc_per_node 2 methods/dig/train_trm.py --name exp              two processes, the same global batch
python methods/dig/train_trm.py --name exp --resume                          go on after an interruption
"""

from common.run.errors import run_script
from common.run.script import start
from methods.dig.config import DiGConfig


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, DiGConfig, "dig_eccv24")
    config, device = setup.config, setup.runtime.device

    from common.data.augment import SeparateViews, train_transform
    from common.data.dataset import LabelledImages
    from common.nets.pretrained import start_weights
    from common.train.trainer import Trainer
    from methods.dig.guide import Guide, feature_shape
    from methods.dig.losses import DiGStep
    from methods.dig.model import DiG

    # Data: one view of an image, for both networks
    images = LabelledImages(config.data, config.train.image_list)
    views = config.views
    size = config.model.img_size
    transform = SeparateViews(train_transform(size, views.scale, views.interpolation, views.auto_augment))

    # Model, frozen diffusion model, losses
    guide = Guide(config.diffusion, config.unet, config.loss, config.model, setup.runtime)
    features = feature_shape(config.diffusion, config.unet) if config.loss.has_lfca() else None
    model = DiG(config.model, len(images.classes), features).to(device)
    origin = start_weights(model, config.model.arch, config.model.pretrained, setup.args.resume, config.model)
    step = DiGStep(model, config.loss)

    # Training
    trainer = Trainer(setup, images, transform, model, step, origin)
    trainer.log.say(f"diffusion model: {guide.source}")
    for _ in trainer.epochs():
        for batch in trainer.batches():
            (view,) = batch.views
            guidance = guide(view, batch.epoch, batch.draws)
            losses = trainer.forward(view, batch.labels, batch.epoch, *guidance)
            trainer.learn(losses, batch)
        if trainer.validation_is_due():
            trainer.record(lambda: trainer.score_seeds(model.foreground_maps(config.infer.seed_map)))
    return trainer.close(f"Seeds: python methods/dig/infer_trm.py --name {setup.run.name} --dict")


if __name__ == "__main__":
    run_script(main)
