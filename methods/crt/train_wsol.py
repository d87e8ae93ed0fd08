"""Trains CRT's object localisation on CUB-200-2011.

python methods/crt/train_wsol.py --name wsol                                as published
torchrun --nproc_per_node 2 methods/crt/train_wsol.py --name wsol           two processes, the same global batch
python methods/crt/train_wsol.py --name wsol --resume                       go on after an interruption
"""

from typing import Any

from torch import Tensor, nn

from common.data.cub import CUBImages
from common.errors import run_script
from common.script import start
from common.trainer import Batch, Trainer
from methods.crt.losses import LOSS_TERMS
from methods.crt.model import start_branches
from methods.crt.wsol_config import BEST_LOC_FILE, WSOLConfig
from methods.crt.wsol_losses import WSOLStep
from methods.crt.wsol_model import WSOL
from methods.crt.wsol_optim import wsol_optimizer
from methods.crt.wsol_scoring import locate, summary
from methods.crt.wsol_views import WSOLViews


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, WSOLConfig, "crt_cub")
    config, device, seen_best = setup.config, setup.runtime.device, BestLoc()
    config.check()

    # Data: the official splits; the reference validates on the images that it is tested on
    images, test = (CUBImages(config.data, split) for split in (config.train.image_list, config.train.val_list))
    side = config.model.deit.img_size

    # Model, losses, optimisers
    model = WSOL(config.model, len(images.classes))
    origin = start_branches(model, config.model, setup.args.resume)
    model.to(device)
    trainer = Trainer(
        setup, images, WSOLViews(config.views, side), model, origin, WSOLStep(model),
        LOSS_TERMS, {"best_loc": seen_best}, logits=("cnn", "deit"), optimizer=wsol_optimizer(model, config.optim),
        rate=lambda position, steps: config.optim.lr_in(position.epoch), val_images=test,
        drop_last=config.train.drop_last,
    )  # fmt: skip

    # Training
    def losses_of(module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        share = trainer.batches.mean_part(trainer.position.step)
        return module(*batch.views, batch.labels, config.loss.consistency_in(batch.epoch), share)

    def score() -> float:
        values = summary(locate(model.deit, test, config.eval, side, setup.runtime, "validation"))
        position = trainer.position
        trainer.log.numbers(
            position.total_steps, {f"val_{name}": value for name, value in values.items()}, kind="validation",
            epoch=position.epoch,
        )  # fmt: skip
        trainer.log.say(
            f"epoch {position.epoch}: {test.list_name}: GT-known {values['gt_known']:.2f}, Loc@1 "
            f"{values['loc_top1']:.2f}, Loc@5 {values['loc_top5']:.2f}, Cls@1 {values['cls_top1']:.2f}, Cls@5 "
            f"{values['cls_top5']:.2f}"
        )
        if values["loc_top1"] > seen_best.value:
            seen_best.value = values["loc_top1"]
            trainer.checkpoints.save_weights(BEST_LOC_FILE)
        return values["gt_known"]

    return trainer.run(
        losses_of, validate=score, next_command=f"Scores: python methods/crt/eval_wsol.py --name {setup.run.name} --vis"
    )


class BestLoc:
    """The largest Loc@1 of a run so far, in percent, as a part of its checkpoints; its best weights are by GT-known."""

    value = -1.0

    def state_dict(self) -> dict[str, Any]:
        """The value."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` returned."""
        self.value = state["value"]


if __name__ == "__main__":
    run_script(main)
