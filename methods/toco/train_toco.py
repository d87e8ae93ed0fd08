"""Trains ToCo: classifier, auxiliary classifier and segmentation in a single stage.

python methods/toco/train_toco.py --name exp                                 VOC 2012, as published (DeiT-B)
python methods/toco/train_toco.py --name exp --exp toco_coco_cvpr23          COCO 2014
torchrun --nproc_per_node 2 methods/toco/train_toco.py --name exp            two processes, the same global batch
python methods/toco/train_toco.py --name exp --resume                        go on after an interruption
"""

import torch
from torch import Tensor, nn

from common.checkpoint import Position
from common.data.dataset import ImageSet
from common.errors import run_script
from common.pretrained import start_weights
from common.script import start
from common.trainer import Batch, Trainer
from methods.toco.config import WEIGHTS_FILE, ToCoConfig
from methods.toco.model import ToCo
from methods.toco.optim import toco_lr, toco_optimizer
from methods.toco.step import LOSS_TERMS, ToCoStep
from methods.toco.validation import validate
from methods.toco.views import ToCoViews


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, ToCoConfig, "toco_cvpr23")
    config, device, processes = setup.config, setup.runtime.device, setup.processes

    # Data: two global views of an image, and a third one that local crops are cut from
    images, views = ImageSet(config.data, config.train.image_list).labelled(), config.views

    # Model, losses, optimiser
    model = ToCo(config.model, len(images.classes)).to(device)
    origin = start_weights(model, config.model.arch, config.model.pretrained, setup.args.resume)
    step = ToCoStep(
        model, config.loss, config.labels, config.energy, views.local_size, processes.gather_rows, processes.rank
    )
    trainer = Trainer(
        setup, images, ToCoViews(views), model, origin, step, LOSS_TERMS, {}, logits=("cls", "aux"),
        optimizer=toco_optimizer(model, config.optim),
        rate=lambda position, steps: toco_lr(position.total_steps, trainer.total_steps, config.optim),
    )  # fmt: skip

    # Training
    def losses_of(module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        if batch.is_first:
            model.update_teacher(config.loss.momentum)
        count = len(batch.labels)
        picks = torch.rand(count * processes.world, views.local_crops, generator=batch.draws, dtype=torch.float64)
        own = picks[processes.rank * count : (processes.rank + 1) * count]
        return module(*batch.views, batch.labels, batch.step, own.to(device))

    def score() -> float:
        values = validate(model, trainer.val_images.labelled(config.train.val_limit), config, setup.runtime)
        trainer.log.numbers(trainer.position.total_steps, values, kind="validation")
        text = ", ".join(f"{name.removeprefix('val_')} {value:.2f}" for name, value in values.items())
        trainer.log.say(f"step {trainer.position.total_steps}: {text}")
        return values["val_seg"]

    def after_step(position: Position) -> None:
        if config.train.keeps_weights(position, position.total_steps == trainer.total_steps):
            trainer.check()
            trainer.checkpoints.save_weights(WEIGHTS_FILE.format(position.total_steps))

    return trainer.run(
        losses_of,
        validate=score,
        after_step=after_step,
        next_command=f"Segmentation: python methods/toco/infer_seg.py --name {setup.run.name} --crf",
    )


if __name__ == "__main__":
    run_script(main)
