"""Trains CTI's classifier.

python methods/cti/train_trm.py --name exp                                   VOC 2012, as published
python methods/cti/train_trm.py --name exp --exp cti_coco_cvpr24             COCO 2014
torchrun --nproc_per_node 2 methods/cti/train_trm.py --name exp              two processes, the same global batch
python methods/cti/train_trm.py --name exp --resume                          go on after an interruption
"""

from common.run.errors import run_script
from common.run.script import start
from methods.cti.config import CTIConfig


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, CTIConfig, "cti_cvpr24")
    config, device, processes = setup.config, setup.runtime.device, setup.processes

    from common.data.augment import SeparateViews, train_transform
    from common.data.dataset import LabelledImages
    from common.nets.pretrained import start_weights
    from common.train.trainer import Trainer
    from methods.cti.losses import CTIStep
    from methods.cti.memory import TokenMemory
    from methods.cti.model import CTI

    # Data: two views of an image, the second with RandAugment
    images = LabelledImages(config.data, config.train.image_list)
    views = config.views
    size = config.model.img_size
    transform = SeparateViews(
        train_transform(size, views.scale, views.interpolation),
        train_transform(size, views.scale2, views.interpolation, views.auto_augment),
    )

    # Model, token memory, losses
    model = CTI(config.model, len(images.classes)).to(device)
    origin = start_weights(model, config.model.arch, config.model.pretrained, setup.args.resume, config.model)
    memory = TokenMemory(len(images.classes), config.loss.memory_size, model.embed_dim, device)
    step = CTIStep(model, config.loss, memory, processes.gather_rows)

    # Training
    trainer = Trainer(setup, images, transform, model, step, origin, parts={"memory": memory})
    for _ in trainer.epochs():
        for batch in trainer.batches():
            memory.expect(processes.gather_rows(batch.host_labels))
            losses = trainer.forward(*batch.views, batch.labels, batch.epoch)
            trainer.learn(losses, batch)
        if trainer.validation_is_due():
            trainer.record(lambda: trainer.score_seeds(model.foreground_maps(config.infer.seed_map)))
    return trainer.close(f"Seeds: python methods/cti/infer_trm.py --name {setup.run.name} --dict")


if __name__ == "__main__":
    run_script(main)
