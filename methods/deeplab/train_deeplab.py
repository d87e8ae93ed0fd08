"""Trains DeepLabV2 on label masks: pseudo masks of an earlier stage, or true ones.

python methods/deeplab/train_deeplab.py --name exp --masks experiment/irn/masks   VOC 2012, as published
python methods/deeplab/train_deeplab.py --name exp --masks experiment/irn/masks --exp deeplab_coco   COCO 2014
python methods/deeplab/train_deeplab.py --name exp --masks MASKS --init torchvision views.input=imagenet
torchrun --nproc_per_node 2 methods/deeplab/train_deeplab.py --name exp --masks MASKS train.accumulation=1
python methods/deeplab/train_deeplab.py --name exp --resume                  go on after an interruption

Every train.keep_steps steps it writes ckpt/checkpoint_N.pth, at the end ckpt/checkpoint_final.pth.
"""

from common.run.errors import run_script
from common.run.script import start
from methods.deeplab.config import FINAL_FILE, WEIGHTS_FILE, DeepLabConfig


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, DeepLabConfig, "deeplab_voc")
    config, device = setup.config, setup.runtime.device

    from common.data.dataset import ImageSet, class_names
    from common.masks.scores import validate
    from common.masks.training import TrainingMasks
    from common.masks.views import MaskViews, input_transform
    from common.pipeline.builders import mask_advice
    from common.train.trainer import Trainer
    from methods.deeplab.losses import DeepLabStep
    from methods.deeplab.model import DeepLab
    from methods.deeplab.optim import deeplab_optimizer
    from methods.deeplab.weights import start_deeplab

    # Data: a random crop of an image and its mask; image labels are not needed
    images = ImageSet(config.data, config.train.image_list)
    num_labels = len(class_names(config.data)) + 1
    masks = TrainingMasks(images, config.train.masks, num_labels, mask_advice(images.list_name))
    transform = MaskViews(config.views)

    # Model, losses, optimiser
    model = DeepLab(config.model, num_labels).to(device)
    origin = start_deeplab(model, config, setup.args.resume)
    step = DeepLabStep(model)
    optimizer = deeplab_optimizer(model, config.optim)

    # Training
    trainer = Trainer(
        setup, images, transform, model, step, origin, optimizer=optimizer, rate=config.optim.rate, load=masks.load
    )

    def score() -> float:
        val_transform = input_transform(config.views.input)
        scores = validate(model.base, trainer.val_images, val_transform, config.train.val_batch, setup.runtime)
        trainer.log.numbers(trainer.position.total_steps, scores.in_percent("val_"), kind="validation")
        trainer.log.say(f"step {trainer.position.total_steps}, one scale, {config.train.val_list!r}: {scores}")
        return 100 * scores.mean_iou

    for _ in trainer.epochs():
        for batch in trainer.batches():
            losses = trainer.forward(*batch.views)
            is_step_done = trainer.learn(losses, batch)
            if is_step_done and config.train.keeps_weights(trainer.position, trainer.is_last_step()):
                trainer.save_weights(WEIGHTS_FILE.format(trainer.position.total_steps))
            if is_step_done and trainer.is_last_step():
                trainer.save_weights(FINAL_FILE)
        if trainer.validation_is_due():
            trainer.record(score)
    return trainer.close(f"Test: python methods/deeplab/test_deeplab.py --name {setup.run.name} --crf")


if __name__ == "__main__":
    run_script(main)
