"""Trains the ViT segmenter on label masks: pseudo masks of an earlier stage, or true ones.

python methods/vitseg/train_vitseg.py --name exp --masks experiment/irn/masks          VOC 2012
python methods/vitseg/train_vitseg.py --name exp --masks MASKS --exp vitseg_coco       COCO 2014
python methods/vitseg/train_vitseg.py --name exp --masks MASKS model.arch=timm:vit_base_patch14_reg4_dinov2
python methods/vitseg/train_vitseg.py --name exp --masks MASKS --other_masks OTHERS train.ignore=disputed
torchrun --nproc_per_node 2 methods/vitseg/train_vitseg.py --name exp --masks MASKS    two processes
python methods/vitseg/train_vitseg.py --name exp --resume                              go on after an interruption

Every train.keep_steps steps it writes ckpt/checkpoint_N.pth, at the end ckpt/checkpoint_final.pth.
"""

from common.run.errors import run_script
from common.run.script import start
from methods.vitseg.config import FINAL_FILE, WEIGHTS_FILE, VitSegConfig


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, VitSegConfig, "vitseg_voc")
    config, device = setup.config, setup.runtime.device

    from common.data.dataset import ImageSet, class_names
    from common.masks.scores import validate
    from common.masks.training import TrainingMasks
    from common.masks.views import MaskViews, input_transform
    from common.nets.pretrained import start_weights
    from common.pipeline.builders import mask_advice
    from common.train.trainer import Trainer
    from methods.vitseg.losses import Teacher, VitSegStep
    from methods.vitseg.masks import DisputedMasks
    from methods.vitseg.model import VitSeg
    from methods.vitseg.optim import vitseg_optimizer

    # Data: a random crop of an image and its mask; image labels are not needed
    images = ImageSet(config.data, config.train.image_list)
    num_labels = len(class_names(config.data)) + 1
    advice = mask_advice(images.list_name)
    masks = TrainingMasks(images, config.train.masks, num_labels, advice)
    load = masks.load
    if config.train.ignore == "disputed":
        load = DisputedMasks(masks, TrainingMasks(images, config.train.other_masks, num_labels, advice)).load
    transform = MaskViews(config.views)

    # Model, loss, teacher, optimiser
    model = VitSeg(config.model, num_labels).to(device)
    origin = start_weights(model, config.model.arch, config.model.pretrained, setup.args.resume, config.model)
    step = VitSegStep(model)
    teacher = Teacher(model, config.teacher) if config.teacher.from_epoch >= 0 else None
    if teacher:
        step.terms = (*step.terms, "corrected")  # no loss: the share of pixels whose label the teacher changes
    optimizer = vitseg_optimizer(model, config.optim)

    # Training
    trainer = Trainer(
        setup, images, transform, model, step, origin, parts={"teacher": teacher} if teacher else None,
        optimizer=optimizer, rate=config.optim.rate, load=load,
    )  # fmt: skip

    def score() -> float:
        val_transform = input_transform(config.views.input)
        scores = validate(model, trainer.val_images, val_transform, config.train.val_batch, setup.runtime)
        trainer.log.numbers(trainer.position.total_steps, scores.in_percent("val_"), kind="validation")
        trainer.log.say(f"step {trainer.position.total_steps}, one scale, {config.train.val_list!r}: {scores}")
        return 100 * scores.mean_iou

    for _ in trainer.epochs():
        for batch in trainer.batches():
            view, given = batch.views
            targets = teacher.corrected(view, given, batch.epoch) if teacher else given
            losses = trainer.forward(view, targets)
            if teacher:
                losses["corrected"] = (targets != given).float().mean()
            is_step_done = trainer.learn(losses, batch)
            if is_step_done and teacher:
                teacher.follow(model)
            if is_step_done and config.train.keeps_weights(trainer.position, trainer.is_last_step()):
                trainer.save_weights(WEIGHTS_FILE.format(trainer.position.total_steps))
            if is_step_done and trainer.is_last_step():
                trainer.save_weights(FINAL_FILE)
        if trainer.validation_is_due():
            trainer.record(score)
    return trainer.close(f"Test: python methods/vitseg/test_vitseg.py --name {setup.run.name} --crf")


if __name__ == "__main__":
    run_script(main)
