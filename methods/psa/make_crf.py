"""Writes CRF marginals of seeds under a low and a high background exponent, for PSA's training.

python methods/psa/make_crf.py --name psa --seeds experiment/exp/dict                  VOC 2012, MCTformer's exponents
python methods/psa/make_crf.py --name psa --seeds experiment/exp/dict --low_alpha 4 --high_alpha 32   other exponents
python methods/psa/make_crf.py --name psa --seeds experiment/exp/dict crf.device=cuda crf.backend=lattice    on a GPU
torchrun --nproc_per_node 2 methods/psa/make_crf.py --name psa --seeds experiment/exp/dict    shared by two processes

Files are experiment/NAME/crf/<exponent>/<id>.npy, about 40 GB for VOC's train_aug, half of that with crf.format=npz. An
interrupted call goes on where it stopped. Then: methods/psa/train_aff.py, methods/psa/infer_aff.py.
"""

from common.run.errors import run_script
from common.run.script import PREPARATION, start
from methods.psa.config import PSAConfig

READS = ("data", "seeds", "crf", "train.image_list", "runtime.num_workers")


def main() -> None:
    """Goes in the order config, data, marginals."""
    setup = start(__doc__, PSAConfig, "psa_voc", PREPARATION, reads=READS)
    config, run, processes, runtime = setup.config, setup.run, setup.processes, setup.runtime

    from common.data.dataset import ImageSet, class_names
    from common.masks.from_seeds import require_maps, seed_thresholds
    from common.run.processes import stop_processes
    from methods.psa.marginals import write_marginals

    # Data: image labels are not needed, the seeds have them
    images = ImageSet(config.data, config.train.image_list)
    seeds = config.seeds.path()
    require_maps(images, seeds, "the inference script of the seeds' method, with --dict")
    thresholds = seed_thresholds(config.seeds, class_names(config.data)) if config.seeds.thresholds else {}

    # Marginals
    processes.on_main(run.lock)
    write_marginals(images, seeds, run.crf, config.crf, runtime, setup.args.overwrite, thresholds)
    processes.say(f"Training: python methods/psa/train_aff.py --name {run.name}")
    stop_processes()


if __name__ == "__main__":
    run_script(main)
