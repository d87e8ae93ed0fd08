"""Makes pseudo masks: a random walk from the seeds along IRN's affinities, experiment/NAME/masks/<id>.png.

python methods/irn/infer_irn.py --name irn --seeds experiment/exp/dict                          train_aug
python methods/irn/infer_irn.py --name irn --seeds experiment/exp/dict --infer_list train       another list
python methods/irn/infer_irn.py --name irn --seeds experiment/exp/dict --load_pretrained res50_irn.pth   other weights
torchrun --nproc_per_node 2 methods/irn/infer_irn.py --name irn --seeds experiment/exp/dict     two processes

An interrupted call goes on where it stopped.
"""

from common.run.errors import run_script
from common.run.folder import MASK_SCORES
from common.run.script import REFINEMENT, start
from methods.irn.config import WEIGHTS_FILE, IRNConfig

READS = ("data", "seeds", "model", "walk", "infer", "runtime")


def main() -> None:
    """Goes in the order config, images, model, masks; then their score."""
    setup = start(__doc__, IRNConfig, "irn_cti", REFINEMENT, reads=READS)
    config, run, infer, runtime = setup.config, setup.run, setup.config.infer, setup.runtime
    processes, num_workers = setup.processes, config.runtime.num_workers

    from common.data.dataset import ImageSet
    from common.data.outputs import MaskFolder, write_each
    from common.masks.from_seeds import require_maps, seed_settings
    from common.nets.load import load_network
    from common.run.processes import stop_processes
    from common.score.options import EvalConfig
    from common.score.report import report, score_folder
    from methods.irn.masks import random_walks
    from methods.irn.model import IRN, unique_tensors

    # Images and seeds
    images, seeds = ImageSet(config.data, infer.image_list), config.seeds.path()
    require_maps(images, seeds, "the inference of the seeds, with --dict")

    # Model
    model = IRN(config.model)
    weights = load_network(setup, images, model, unique_tensors, WEIGHTS_FILE)

    # Masks
    settings = {
        **weights, **seed_settings(seeds), **config.walk.settings(), "canvas": infer.canvas,
        "batch_size": infer.batch_size, "precision": runtime.precision,
    }  # fmt: skip
    folder = MaskFolder(run.masks, settings, runtime, setup.args.overwrite)
    write_each(images, folder, random_walks(model, images, seeds, config, runtime, folder.is_done), processes)

    # Score
    if infer.eval_list:
        result = score_folder(folder.path, "png", config.data, infer.eval_list, EvalConfig(), processes, num_workers)
        report(result, run, MASK_SCORES, processes)
    stop_processes()


if __name__ == "__main__":
    run_script(main)
