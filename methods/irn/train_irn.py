"""Trains IRN on the label maps that make_ir_label.py has written into the same run.

python methods/irn/train_irn.py --name irn                                   VOC 2012, as published for CTI
python methods/irn/train_irn.py --name irn --exp irn_crt                     with CRT's thresholds
torchrun --nproc_per_node 2 methods/irn/train_irn.py --name irn              two processes, the same global batch
python methods/irn/train_irn.py --name irn --resume                          go on after an interruption
"""

from common.run.errors import run_script
from common.run.script import start
from methods.irn.config import INPUTS, WEIGHTS_FILE, IRNConfig


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, IRNConfig, "irn_cti", inputs=INPUTS)
    config, device, processes = setup.config, setup.runtime.device, setup.processes

    from common.data.dataset import ImageSet
    from common.nets.pretrained import start_weights
    from common.train.trainer import Trainer
    from methods.irn.displacement import mean_displacement
    from methods.irn.label_files import LabelFiles
    from methods.irn.losses import IRNStep
    from methods.irn.model import IRN
    from methods.irn.optim import irn_optimizer
    from methods.irn.views import IRNViews

    # Data: a random crop of an image and its label map; the images of the mean displacement
    images = ImageSet(config.data, config.train.image_list)
    label_maps = LabelFiles(images, config.labels.place(setup.run))
    centred = ImageSet(config.data, config.train.displacement_list)
    transform = IRNViews(config.views)

    # Model, losses, optimiser
    model = IRN(config.model).to(device)
    origin = start_weights(model, config.model.arch, config.model.pretrained, setup.args.resume)
    step = IRNStep(model, config.loss, processes.gather_rows)
    optimizer = irn_optimizer(model, config.optim)

    # Training; the last step sets the mean displacement
    trainer = Trainer(
        setup, images, transform, model, step, origin, optimizer=optimizer, rate=config.optim.rate, load=label_maps.load
    )
    for epoch in trainer.epochs():
        for batch in trainer.batches():
            losses = trainer.forward(*batch.views)
            is_step_done = trainer.learn(losses, batch)
            if is_step_done and trainer.is_last_step():
                trainer.check()
                mean = mean_displacement(
                    model, centred, config.views.crop_size, config.train.batch_size,
                    config.train.displacement_drop_last, setup.runtime, config.runtime.num_workers,
                )  # fmt: skip
                model.mean_shift.running_mean.copy_(mean)
                trainer.save_weights(WEIGHTS_FILE.format(epoch))
                trainer.log.say("mean displacement: " + ", ".join(f"{value:.4f}" for value in mean.tolist()))
    return trainer.close(f"Masks: python methods/irn/infer_irn.py --name {setup.run.name} --seeds FOLDER")


if __name__ == "__main__":
    run_script(main)
