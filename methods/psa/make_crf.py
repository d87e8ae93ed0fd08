"""Writes the CRF scores of seeds that PSA's affinity labels are made of, under a low and a high background exponent.

python methods/psa/make_crf.py --name psa --seeds experiment/exp/dict                VOC 2012, MCTformer's exponents
python methods/psa/make_crf.py --name psa --seeds experiment/exp/dict --low_alpha 4 --high_alpha 32       others
python methods/psa/make_crf.py --name psa --seeds experiment/exp/dict crf.device=cuda crf.backend=lattice  on a GPU
torchrun --nproc_per_node 2 methods/psa/make_crf.py --name psa --seeds experiment/exp/dict  shared by two processes

They go to experiment/NAME/crf/<exponent>/; an interrupted run goes on. For VOC's train_aug they take about 40 GB, half
of it with crf.format=npz.
"""

from common.run.errors import run_script
from common.run.script import PREPARATION, start
from methods.psa.config import PSAConfig


def main() -> None:
    """Goes in the order config, data, seeds, scores."""
    reads = ("data", "seeds", "crf", "train.image_list", "runtime.num_workers")
    setup = start(__doc__, PSAConfig, "psa_voc", PREPARATION, reads=reads)
    config, run, processes = setup.config, setup.run, setup.processes

    from common.data.dataset import ImageSet
    from common.masks.from_seeds import require_maps
    from common.run.processes import stop_processes
    from methods.psa.scores import write_scores

    # Data: image labels are not needed, the seeds have them
    images, seeds = ImageSet(config.data, config.train.image_list), config.seeds.path()
    require_maps(images, seeds, "the inference script of the seeds' method, with --dict")

    # Scores
    write_scores(images, seeds, run.crf, config.crf, setup.runtime, setup.args.overwrite)
    processes.say(f"Training: python methods/psa/train_aff.py --name {run.name}")
    stop_processes()


if __name__ == "__main__":
    run_script(main)
