"""Trains DeepLabV2 on label masks: pseudo masks of an earlier stage, or true ones.

python methods/deeplab/train_deeplab.py --name exp --masks experiment/irn/masks            VOC 2012, as published
python methods/deeplab/train_deeplab.py --name exp --masks experiment/irn/masks --exp deeplab_coco          COCO 2014
python methods/deeplab/train_deeplab.py --name exp --masks MASKS --init torchvision views.input=imagenet
torchrun --nproc_per_node 2 methods/deeplab/train_deeplab.py --name exp --masks MASKS train.accumulation=1
python methods/deeplab/train_deeplab.py --name exp --resume                                go on after an interruption

Every train.keep_steps steps there is a file ckpt/checkpoint_N.pth, at the end checkpoint_final.pth.
"""

from common.checkpoint import Position
from common.data.dataset import ImageSet, class_names
from common.errors import run_script
from common.script import start
from common.trainer import Trainer
from methods.deeplab.config import FINAL_FILE, WEIGHTS_FILE, DeepLabConfig
from methods.deeplab.losses import DeepLabStep
from methods.deeplab.masks import TrainingMasks
from methods.deeplab.model import DeepLab
from methods.deeplab.optim import deeplab_lr, deeplab_optimizer
from methods.deeplab.scores import validate
from methods.deeplab.views import DeepLabViews, input_transform
from methods.deeplab.weights import load_init


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, DeepLabConfig, "deeplab_voc")
    config, runtime = setup.config, setup.runtime

    # Data: a random crop of an image and its mask; image labels are not needed
    images = ImageSet(config.data, config.train.image_list, with_labels=False)
    num_labels = len(class_names(config.data)) + 1
    masks = TrainingMasks(images, config.train.masks, num_labels)

    # Model, losses, optimiser
    model = DeepLab(config.model, num_labels)
    origin = "resumed" if setup.args.resume else load_init(model, config)
    model.to(runtime.device)
    step = DeepLabStep(model)
    trainer = Trainer(
        setup, images, DeepLabViews(config.views), model, origin, step, step.terms, {}, logits=(),
        optimizer=deeplab_optimizer(model, config.optim), load=masks,
        rate=lambda position, steps: deeplab_lr(position.total_steps, trainer.total_steps, config.optim),
    )  # fmt: skip

    # Training
    def score() -> float:
        transform = input_transform(config.views.input)
        scores = validate(model.base, trainer.val_images, transform, config.train.val_batch, runtime)
        trainer.log.numbers(trainer.position.total_steps, scores.in_percent("val_"), kind="validation")
        trainer.log.say(f"step {trainer.position.total_steps}, one scale, {config.train.val_list!r}: {scores}")
        return 100 * scores.mean_iou

    def after_step(position: Position) -> None:
        is_last = position.total_steps == trainer.total_steps
        if config.train.keeps_weights(position, is_last):
            trainer.check()
            trainer.checkpoints.save_weights(WEIGHTS_FILE.format(position.total_steps))
            if is_last:
                trainer.checkpoints.save_weights(FINAL_FILE)

    return trainer.run(
        losses_of=lambda module, batch: module(*batch.views),
        validate=score,
        after_step=after_step,
        next_command=f"Test: python methods/deeplab/test_deeplab.py --name {setup.run.name} --crf",
    )


if __name__ == "__main__":
    run_script(main)
