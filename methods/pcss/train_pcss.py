"""Trains PCSS's classifier.

python methods/pcss/train_pcss.py --name exp                                 VOC 2012, as published
python methods/pcss/train_pcss.py --name exp --exp pcss_coco_eccv24          COCO 2014
torchrun --nproc_per_node 2 methods/pcss/train_pcss.py --name exp            two processes, the same global batch
python methods/pcss/train_pcss.py --name exp --resume                        go on after an interruption
"""

from common.run.errors import run_script
from common.run.script import start
from methods.pcss.config import PCSSConfig


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, PCSSConfig, "pcss_eccv24")
    config, device, processes = setup.config, setup.runtime.device, setup.processes

    from common.data.augment import SeparateViews, train_transform
    from common.data.dataset import LabelledImages
    from common.nets.pretrained import start_weights
    from common.train.trainer import Trainer
    from methods.pcss.fim import FIM, report_round
    from methods.pcss.importance import FrequencyImportance
    from methods.pcss.losses import PCSSStep
    from methods.pcss.model import PCSS

    # Data: one view of an image, with RandAugment
    images = LabelledImages(config.data, config.train.image_list)
    views = config.views
    size = config.model.img_size
    transform = SeparateViews(train_transform(size, views.scale, views.interpolation, views.auto_augment))

    # Model, importance masks, losses
    model = PCSS(config.model, len(images.classes)).to(device)
    origin = start_weights(model, config.model.arch, config.model.pretrained, setup.args.resume, config.model)
    importance = FrequencyImportance(len(images.classes), size, config.fim, device)
    fim = FIM(importance, images, setup.runtime) if config.loss.weights[0] > 0 else None
    step = PCSSStep(model, config.loss, importance, processes.gather_rows, processes.rank)

    # Training; some epochs end with a round of frequency importance
    trainer = Trainer(setup, images, transform, model, step, origin, parts={"importance": importance})
    for epoch in trainer.epochs():
        for batch in trainer.batches():
            losses = trainer.forward(*batch.views, batch.labels, batch.epoch, step.draw_partners(batch, processes))
            trainer.learn(losses, batch)
        if trainer.validation_is_due():
            trainer.record(lambda: trainer.score_seeds(model.foreground_maps(config.infer.seed_map)))
        if fim and trainer.epoch_is_complete() and importance.is_due_after(epoch, config.train.epochs):
            trainer.save_last()  # a round may fail: the resumed run begins with it
            ratios = fim.measure(model, epoch, trainer.is_stopping)
            if ratios is None:  # a signal came: the resumed run goes on with the round
                break
            report_round(ratios, importance, epoch, images.classes, trainer.log, trainer.position, setup.run)
    return trainer.close(f"Seeds: python methods/pcss/infer_pcss.py --name {setup.run.name} --dict")


if __name__ == "__main__":
    run_script(main)
