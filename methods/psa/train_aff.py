"""Trains PSA's AffinityNet on the CRF marginals that make_crf.py has written into the same run.

python methods/psa/train_aff.py --name psa                                   ResNet-38, MCTformer's parameters
python methods/psa/train_aff.py --name psa model.arch=resnet50               a trunk of ImageNet instead
torchrun --nproc_per_node 2 methods/psa/train_aff.py --name psa              two processes, the same global batch
python methods/psa/train_aff.py --name psa --resume                          go on after an interruption
"""

from common.run.errors import run_script
from common.run.folder import CRF_DIR
from common.run.script import start
from methods.psa.config import PSAConfig


def main() -> int:
    """Sets up in the order config, data, model, losses; then trains. Returns the exit code."""
    setup = start(__doc__, PSAConfig, "psa_voc", inputs=(CRF_DIR,))
    config, device, processes = setup.config, setup.runtime.device, setup.processes

    from common.data.dataset import ImageSet
    from common.train.trainer import Trainer
    from methods.psa.losses import PSAStep
    from methods.psa.marginals import MarginalFiles
    from methods.psa.model import affinity_net, start_affinity_net
    from methods.psa.optim import psa_optimizer
    from methods.psa.views import PSAViews

    # Data: a random crop of an image and its CRF marginals
    images = ImageSet(config.data, config.train.image_list)
    made_by = f"python methods/psa/make_crf.py --name {setup.run.name} --seeds FOLDER"
    marginals = MarginalFiles(images, setup.run.crf, config.crf, made_by)
    transform = PSAViews(config.views, config.model.stride)

    # Model, losses, optimiser
    model = affinity_net(config.model).to(device)
    origin = start_affinity_net(model, config.model, setup.args.resume)
    step = PSAStep(model, config.model.radius, processes.gather_rows)
    optimizer = psa_optimizer(model, config.optim)

    # Training
    trainer = Trainer(
        setup,
        images,
        transform,
        model,
        step,
        origin,
        optimizer=optimizer,
        rate=config.optim.rate,
        load=marginals.load,
        inputs={"CRF marginals": marginals.files()},
    )
    low, high = config.crf.alphas()
    trainer.log.say(f"targets by background exponents {low} and {high}; momentum {config.optim.momentum}")
    for _ in trainer.epochs():
        for batch in trainer.batches():
            losses = trainer.forward(*batch.views)
            trainer.learn(losses, batch)
    return trainer.close(f"Masks: python methods/psa/infer_aff.py --name {setup.run.name} --seeds FOLDER")


if __name__ == "__main__":
    run_script(main)
