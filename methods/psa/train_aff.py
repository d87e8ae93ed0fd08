"""Trains PSA's AffinityNet on the scores that make_crf.py has written into the same run.

python methods/psa/train_aff.py --name psa                                  ResNet-38, MCTformer's parameters
python methods/psa/train_aff.py --name psa model.arch=resnet50              a trunk of ImageNet instead
torchrun --nproc_per_node 2 methods/psa/train_aff.py --name psa             two processes, the same global batch
python methods/psa/train_aff.py --name psa --resume                         go on after an interruption
"""

from common.data.dataset import ImageSet
from common.errors import run_script
from common.script import start
from common.trainer import Trainer
from methods.psa.config import SCORES_DIR, PSAConfig
from methods.psa.labels import AffinityViews
from methods.psa.losses import LOSS_TERMS, AffinityStep
from methods.psa.model import affinity_net, start_from
from methods.psa.optim import affinity_lr, affinity_sgd
from methods.psa.scores import ScoredImages


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, PSAConfig, "psa_voc", inputs=(SCORES_DIR,))
    config, run = setup.config, setup.run

    # Data: images with their CRF scores; views of both
    images = ImageSet(config.data, config.train.image_list, with_labels=False)
    make_crf = f"python methods/psa/make_crf.py --name {run.name} --seeds FOLDER"
    scored = ScoredImages(images, run.path / SCORES_DIR, config.crf, make_crf)

    # Model, losses, optimiser
    model = affinity_net(config.model).to(setup.runtime.device)
    config.check(model.stride)
    origin = start_from(model, config.model, setup.args.resume)
    step = AffinityStep(model, config.model.radius, setup.processes.gather_rows)
    trainer = Trainer(
        setup, images, AffinityViews(config.views, model.stride), model, origin, step, LOSS_TERMS, {}, logits=(),
        optimizer=affinity_sgd(model, config.optim),
        rate=lambda position, steps: affinity_lr(position.total_steps, trainer.total_steps, config.optim),
        load=scored.load,
    )  # fmt: skip

    # Training
    low, high = config.crf.alphas()
    trainer.log.say(f"labels by background exponents {low} and {high}; momentum {config.optim.momentum}")
    return trainer.run(
        losses_of=lambda module, batch: module(*batch.views),
        next_command=f"Masks: python methods/psa/infer_aff.py --name {run.name} --seeds FOLDER",
    )


if __name__ == "__main__":
    run_script(main)
