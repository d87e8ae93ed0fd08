"""Trains CTI's classifier.

python methods/cti/train_trm.py --name exp                                   VOC 2012, as published
python methods/cti/train_trm.py --name exp --exp cti_coco_cvpr24             COCO 2014
torchrun --nproc_per_node 2 methods/cti/train_trm.py --name exp              two processes, the same global batch
python methods/cti/train_trm.py --name exp --resume                          go on after an interruption
"""

from common.data.dataset import ImageSet
from common.data.transforms import SeparateViews, train_transform
from common.errors import run_script
from common.pretrained import start_weights
from common.script import start
from common.trainer import Trainer
from methods.cti.config import CTIConfig
from methods.cti.losses import LOSS_TERMS, CTIStep
from methods.cti.memory import TokenMemory
from methods.cti.model import CTI


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, CTIConfig, "cti_cvpr24")
    config, device = setup.config, setup.runtime.device

    # Data: two views of an image, the second with RandAugment
    images, views, size = ImageSet(config.data, config.train.image_list), config.views, config.model.img_size
    transform = SeparateViews(
        train_transform(size, views.scale, views.interpolation),
        train_transform(size, views.scale2, views.interpolation, views.auto_augment),
    )

    # Model, memory, losses
    model = CTI(config.model, len(images.classes)).to(device)
    origin = start_weights(model, config.model.arch, config.model.pretrained, setup.args.resume)
    memory = TokenMemory(len(images.classes), config.loss.memory_size, model.embed_dim, device)
    step = CTIStep(model, config.loss, memory, setup.processes.gather_rows)

    # Training
    trainer = Trainer(setup, images, transform, model, origin, step, LOSS_TERMS, {"memory": memory})
    return trainer.run(
        losses_of=lambda module, batch: module(*batch.views, batch.labels, batch.epoch),
        validate=lambda: trainer.score_seeds(model.foreground_maps(config.infer.seed_map)),
        next_command=f"Seeds: python methods/cti/infer_trm.py --name {setup.run.name} --dict",
    )


if __name__ == "__main__":
    run_script(main)
