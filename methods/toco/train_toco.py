"""Trains ToCo: classifier, auxiliary classifier and segmentation in a single stage.

python methods/toco/train_toco.py --name exp                                 VOC 2012, as published (DeiT-B)
python methods/toco/train_toco.py --name exp --exp toco_coco_cvpr23          COCO 2014
torchrun --nproc_per_node 2 methods/toco/train_toco.py --name exp            two processes, the same global batch
python methods/toco/train_toco.py --name exp --resume                        go on after an interruption

Every train.keep_steps steps it writes ckpt/model_iter_N.pth.
"""

from common.run.errors import run_script
from common.run.script import start
from methods.toco.config import WEIGHTS_FILE, ToCoConfig


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, ToCoConfig, "toco_cvpr23")
    config, runtime, processes = setup.config, setup.runtime, setup.processes

    from common.data.dataset import LabelledImages
    from common.nets.pretrained import start_weights
    from common.train.trainer import Trainer
    from methods.toco.crops import draw_picks
    from methods.toco.labels import most_labels
    from methods.toco.model import ToCo
    from methods.toco.optim import toco_optimizer
    from methods.toco.step import ToCoStep
    from methods.toco.validation import validate
    from methods.toco.views import ToCoViews

    # Data: two global views of an image, and a third view that local crops are cut from
    images = LabelledImages(config.data, config.train.image_list).labelled()
    views = config.views
    transform = ToCoViews(views)

    # Model, losses, optimiser
    model = ToCo(config.model, len(images.classes)).to(runtime.device)
    origin = start_weights(model, config.model.arch, config.model.pretrained, setup.args.resume, config.model)
    step = ToCoStep(
        model, config.loss, config.labels, config.energy, views.local_size, processes.gather_rows, processes.rank
    )
    optimizer = toco_optimizer(model, config.optim)

    # Training
    trainer = Trainer(setup, images, transform, model, step, origin, optimizer=optimizer, rate=config.optim.rate)

    def score() -> float:
        values = validate(model, trainer.val_images.labelled(config.train.val_limit), config, runtime)
        trainer.log.numbers(trainer.position.total_steps, values, kind="validation")
        text = ", ".join(f"{name.removeprefix('val_')} {value:.2f}" for name, value in values.items())
        trainer.log.say(f"step {trainer.position.total_steps}: {text}")
        return values["val_seg"]

    for _ in trainer.epochs():
        for batch in trainer.batches():
            if batch.is_first:
                model.update_teacher(config.loss.momentum)
            (picks,) = runtime.to_device(draw_picks(batch.draws, len(batch.labels), views.local_crops, processes))
            losses = trainer.forward(*batch.views, batch.labels, batch.step, picks, most_labels(batch.host_labels))
            is_step_done = trainer.learn(losses, batch)
            if is_step_done and config.train.keeps_weights(trainer.position, trainer.is_last_step()):
                trainer.save_weights(WEIGHTS_FILE.format(trainer.position.total_steps))
        if trainer.validation_is_due():
            trainer.record(score)
    return trainer.close(f"Segmentation: python methods/toco/infer_seg.py --name {setup.run.name} --crf")


if __name__ == "__main__":
    run_script(main)
