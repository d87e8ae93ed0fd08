"""Trains PCSS's classifier.

python methods/pcss/train_pcss.py --name exp                                 VOC 2012, as published
python methods/pcss/train_pcss.py --name exp --exp pcss_coco_eccv24          COCO 2014
torchrun --nproc_per_node 2 methods/pcss/train_pcss.py --name exp            two processes, the same global batch
python methods/pcss/train_pcss.py --name exp --resume                        go on after an interruption
"""

import torch

from common.data.dataset import ImageSet
from common.data.transforms import SeparateViews, train_transform
from common.errors import run_script
from common.pretrained import start_weights
from common.script import start
from common.trainer import Trainer
from common.visual import heat_maps
from methods.pcss.config import PCSSConfig
from methods.pcss.fim import FIM
from methods.pcss.importance import FrequencyImportance
from methods.pcss.losses import LOSS_TERMS, PCSSStep
from methods.pcss.model import PCSS


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, PCSSConfig, "pcss_eccv24")
    config, device, processes = setup.config, setup.runtime.device, setup.processes

    # Data: one view of an image, with RandAugment
    images, views, size = ImageSet(config.data, config.train.image_list), config.views, config.model.img_size
    transform = SeparateViews(train_transform(size, views.scale, views.interpolation, views.auto_augment))

    # Model, importance masks, losses
    model = PCSS(config.model, len(images.classes)).to(device)
    origin = start_weights(model, config.model.arch, config.model.pretrained, setup.args.resume)
    importance = FrequencyImportance(len(images.classes), size, config.fim, device)
    fim = FIM(importance, images, setup.runtime) if config.loss.weights[0] > 0 else None
    step = PCSSStep(model, config.loss, importance, processes.gather_rows, processes.rank)

    # Training, and a round of frequency importance after some epochs
    trainer = Trainer(setup, images, transform, model, origin, step, LOSS_TERMS, {"importance": importance})

    def measure_importance(epoch: int) -> bool:
        """Whether there was nothing to do, or it was done: a signal may interrupt a round."""
        if fim is None or not importance.is_due_after(epoch, config.train.epochs):
            return True
        trainer.checkpoints.save_last(trainer.position)  # a round may fail; the resumed run begins with it
        ratios = fim.measure(model, epoch, trainer.is_stopping)
        if ratios is None:
            return False
        measured = ratios["min_ratio"].isfinite()
        means = {name: float(values[measured].mean()) for name, values in ratios.items() if measured.any()}
        trainer.log.numbers(trainer.position.total_steps, means, kind="importance", epoch=epoch)
        trainer.log.say(f"epoch {epoch}: frequency importance measured for {int(measured.sum())} classes")
        if processes.is_main:
            title = f"frequency importance after epoch {epoch}"
            path = setup.run.path / "importance" / f"{epoch:03d}.png"
            heat_maps(path, importance.current.cpu().numpy(), images.classes, title)
        return True

    return trainer.run(
        losses_of=lambda module, batch: module(
            *batch.views, batch.labels, batch.epoch,
            torch.randperm(len(batch.labels) * processes.world, generator=batch.draws),
        ),
        validate=lambda: trainer.score_seeds(model.foreground_maps(config.infer.seed_map)),
        after_epoch=measure_importance,
        next_command=f"Seeds: python methods/pcss/infer_pcss.py --name {setup.run.name} --dict",
    )  # fmt: skip


if __name__ == "__main__":
    run_script(main)
