"""Trains DiG's classifier, guided by a frozen diffusion model.

python methods/dig/train_trm.py --name exp                                 VOC 2012, as published
python methods/dig/train_trm.py --name exp --exp dig_coco_eccv24           COCO 2014
python methods/dig/train_trm.py --name exp --W 1 0 0 0 0                   without any diffusion model
python methods/dig/train_trm.py --name exp diffusion.file=FILE             with one of your own (train_diffusion.py)
torchrun --nproc_per_node 2 methods/dig/train_trm.py --name exp            two processes, the same global batch
python methods/dig/train_trm.py --name exp --resume                        go on after an interruption
"""

from torch import Tensor, nn

from common.data.dataset import ImageSet
from common.data.transforms import SeparateViews, train_transform
from common.errors import run_script
from common.pretrained import start_weights
from common.script import start
from common.trainer import Batch, Trainer
from methods.dig.config import DiGConfig
from methods.dig.guide import Guide, feature_shape
from methods.dig.losses import LOSS_TERMS, DiGStep
from methods.dig.model import DiG


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, DiGConfig, "dig_eccv24")
    config, runtime = setup.config, setup.runtime

    # Data: one view of an image, which both networks see
    images, views = ImageSet(config.data, config.train.image_list), config.views
    size = config.model.img_size
    transform = SeparateViews(train_transform(size, views.scale, views.interpolation, views.auto_augment))

    # Model, frozen diffusion model, losses
    guide = Guide(config.diffusion, config.unet, config.loss, config.model, runtime)
    features = feature_shape(config.diffusion, config.unet) if config.loss.has_lfca() else None
    model = DiG(config.model, len(images.classes), features).to(runtime.device)
    origin = start_weights(model, config.model.arch, config.model.pretrained, setup.args.resume)
    step = DiGStep(model, config.loss)

    # Training
    trainer = Trainer(setup, images, transform, model, origin, step, LOSS_TERMS, {})
    trainer.log.say(f"diffusion model: {guide.source}")

    def losses_of(module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        (view,) = batch.views
        return module(view, batch.labels, batch.epoch, *guide(view, batch.epoch, batch.draws))

    return trainer.run(
        losses_of,
        validate=lambda: trainer.score_seeds(model.foreground_maps(config.infer.seed_map)),
        next_command=f"Seeds: python methods/dig/infer_trm.py --name {setup.run.name} --dict",
    )


if __name__ == "__main__":
    run_script(main)
