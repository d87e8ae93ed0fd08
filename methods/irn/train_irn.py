"""Trains IRN on the labels of make_ir_label.py.

python methods/irn/train_irn.py --name irn                                VOC 2012, as published for CTI
python methods/irn/train_irn.py --name irn --exp irn_crt                  with CRT's thresholds
torchrun --nproc_per_node 2 methods/irn/train_irn.py --name irn           two processes, the same global batch
python methods/irn/train_irn.py --name irn --resume                       go on after an interruption
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.checkpoint import Position
from common.data.dataset import ImageSet, read_mask
from common.errors import UserError, preview, run_script
from common.optim import poly
from common.pretrained import start_weights
from common.script import start
from common.trainer import Trainer
from methods.irn.config import WEIGHTS_FILE, IRNConfig, IRNOptimConfig
from methods.irn.displacement import mean_displacement
from methods.irn.losses import LOSS_TERMS, IRNStep
from methods.irn.model import IRN
from methods.irn.views import IRNViews

INPUTS = ("ir_label", "ir_label.json", "eval_ir_label.json")


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, IRNConfig, "irn_cti", inputs=INPUTS)
    config, device, processes = setup.config, setup.runtime.device, setup.processes
    config.check()

    # Data: an image and its label map; those of the mean displacement
    images = ImageSet(config.data, config.train.image_list, with_labels=False)
    labels = LabelFiles(images, Path(config.labels.folder or setup.run.path / "ir_label"))
    centred = ImageSet(config.data, config.train.displacement_list, with_labels=False)

    # Model, losses, optimiser
    model = IRN(config.model)
    origin = start_weights(model, config.model.arch, config.model.pretrained, setup.args.resume)
    model.to(device)
    step, optim = IRNStep(model, config.loss, processes.gather_rows), config.optim
    trainer = Trainer(
        setup, images, IRNViews(config.views), model, origin, step, LOSS_TERMS, {}, logits=(),
        optimizer=irn_optimizer(model, optim), load=labels.load,
        rate=lambda position, steps: optim.lr * poly(position.total_steps, trainer.total_steps, optim.power),
    )  # fmt: skip

    # Training; the mean displacement belongs to its last step
    def after_step(position: Position) -> None:
        if position.total_steps != trainer.total_steps:
            return
        trainer.check()
        mean = mean_displacement(
            model, centred, config.views.crop_size, config.train.batch_size, config.train.displacement_drop_last,
            setup.runtime, config.runtime.num_workers,
        )  # fmt: skip
        model.mean_shift.running_mean.copy_(mean)
        trainer.checkpoints.save_weights(WEIGHTS_FILE.format(position.epoch))
        trainer.log.say("mean displacement: " + ", ".join(f"{value:.4f}" for value in mean.tolist()))

    return trainer.run(
        losses_of=lambda module, batch: module(*batch.views),
        after_step=after_step,
        next_command=f"Masks: python methods/irn/infer_irn.py --name {setup.run.name} --seeds FOLDER",
    )


class LabelFiles:
    """The label maps of an image set; gives image and label map by index."""

    def __init__(self, images: ImageSet, folder: Path) -> None:
        """Names the files.

        Raises:
            UserError: some are missing; they are named.
        """
        self.images, self.files = images, [folder / f"{image_id}.png" for image_id in images.ids]
        there = set(folder.iterdir()) if folder.is_dir() else set()
        missing = [file for file in dict.fromkeys(self.files) if file not in there]
        if missing:
            raise UserError(
                f"{len(missing)} of the {len(set(self.files))} label maps of list {images.list_name!r} are missing: "
                f"{preview(missing, 3)}. Make them with: python methods/irn/make_ir_label.py"
            )

    def load(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """RGB image and labels uint8 (H, W).

        Raises:
            UserError: a file is damaged, or the two are of different sizes.
        """
        image, labels = self.images.load_image(index), read_mask(self.files[index])
        if labels.shape != (image.height, image.width):
            raise UserError(f"{self.files[index]} is of {labels.shape}, its image of {(image.height, image.width)}")
        return image, labels


def irn_optimizer(model: IRN, config: IRNOptimConfig) -> torch.optim.SGD:
    """SGD over the groups of `IRN.parameter_groups`."""
    scales = 1.0, config.displacement_scale
    groups = [
        {"params": group, "lr_scale": scale} for group, scale in zip(model.parameter_groups(), scales, strict=True)
    ]
    return torch.optim.SGD(groups, config.lr, config.momentum, weight_decay=config.weight_decay)


if __name__ == "__main__":
    run_script(main)
