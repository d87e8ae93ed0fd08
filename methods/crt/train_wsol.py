"""Trains CRT's object localisation on CUB-200-2011.

python methods/crt/train_wsol.py --name wsol                                 as published
torchrun --nproc_per_node 2 methods/crt/train_wsol.py --name wsol            two processes, the same global batch
python methods/crt/train_wsol.py --name wsol --resume                        go on after an interruption
"""

from common.run.errors import run_script
from common.run.script import start
from methods.crt.wsol_config import BEST_LOC_FILE, WSOLConfig


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, WSOLConfig, "crt_cub")
    config, device = setup.config, setup.runtime.device

    from common.data.cub import CUBImages
    from common.train.trainer import Trainer
    from methods.crt.model import start_branches
    from methods.crt.wsol_losses import WSOLStep
    from methods.crt.wsol_model import WSOL
    from methods.crt.wsol_optim import wsol_optimizer
    from methods.crt.wsol_scoring import BestLoc, locate, summary
    from methods.crt.wsol_views import WSOLViews

    # Data: a random crop of an image; the reference validates on the images of its test
    images = CUBImages(config.data, config.train.image_list)
    test = CUBImages(config.data, config.train.val_list)
    side = config.model.deit.img_size
    transform = WSOLViews(config.views, side)

    # Model, losses, optimiser
    model = WSOL(config.model, len(images.classes)).to(device)
    origin = start_branches(model, config.model, setup.args.resume)
    step = WSOLStep(model)
    optimizer = wsol_optimizer(model, config.optim)

    # Training; the weights of the largest GT-known are the best, and those of the largest Loc@1 are kept, too
    best_loc = BestLoc()
    trainer = Trainer(
        setup, images, transform, model, step, origin, parts={"best_loc": best_loc}, optimizer=optimizer,
        rate=config.optim.rate, val_images=test, drop_last=config.train.drop_last,
    )  # fmt: skip

    def score() -> float:
        values = summary(locate(model.deit, test, config.eval, side, setup.runtime, "validation"))
        position = trainer.position
        named = {f"val_{name}": value for name, value in values.items()}
        trainer.log.numbers(position.total_steps, named, kind="validation", epoch=position.epoch)
        trainer.log.say(
            f"epoch {position.epoch}: {test.list_name}: GT-known {values['gt_known']:.2f}, "
            f"Loc@1 {values['loc_top1']:.2f}, Loc@5 {values['loc_top5']:.2f}, Cls@1 {values['cls_top1']:.2f}, "
            f"Cls@5 {values['cls_top5']:.2f}"
        )
        if best_loc.improves(values["loc_top1"]):
            trainer.save_weights(BEST_LOC_FILE)
        return values["gt_known"]

    for epoch in trainer.epochs():
        for batch in trainer.batches():
            share = trainer.sampler.mean_part(trainer.position.step)
            losses = trainer.forward(*batch.views, batch.labels, config.loss.consistency_in(epoch), share)
            trainer.learn(losses, batch)
        if trainer.validation_is_due():
            trainer.record(score)
    return trainer.close(f"Scores: python methods/crt/eval_wsol.py --name {setup.run.name} --vis")


if __name__ == "__main__":
    run_script(main)
