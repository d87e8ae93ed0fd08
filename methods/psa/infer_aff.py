"""Turns seeds into pseudo masks by a random walk along AffinityNet's affinities, and scores them.

python methods/psa/infer_aff.py --name psa --seeds experiment/exp/dict                       masks of VOC's train_aug
python methods/psa/infer_aff.py --name psa --seeds experiment/exp/dict --infer_list train --bg_thr 0.45  another list
python methods/psa/infer_aff.py --name new --seeds experiment/exp/dict --load_pretrained resnet38_aff.pth    a release
torchrun --nproc_per_node 2 methods/psa/infer_aff.py --name psa --seeds experiment/exp/dict   shared by two processes

Masks are experiment/NAME/masks/<id>.png. An interrupted call goes on where it stopped.
"""

from common.run.errors import run_script
from common.run.folder import MASK_SCORES
from common.run.script import REFINEMENT, start
from methods.psa.config import PSAConfig

READS = ("data", "seeds", "model.arch", "model.radius", "walk", "infer", "runtime.device", "runtime.precision")


def main() -> None:
    """Goes in the order config, data, model, masks; then their score."""
    setup = start(__doc__, PSAConfig, "psa_voc", REFINEMENT, reads=READS)
    config, run, processes, runtime = setup.config, setup.run, setup.processes, setup.runtime
    infer = config.infer

    from common.data.dataset import ImageSet, class_names
    from common.data.outputs import MaskFolder, write_each
    from common.data.stamp import MASKS, stamp_of
    from common.masks.from_seeds import require_maps, seed_thresholds, source_settings
    from common.nets.load import load_network
    from common.run.processes import stop_processes
    from common.score.options import EvalConfig
    from common.score.report import report, score_folder
    from methods.psa.masks import pseudo_masks
    from methods.psa.model import affinity_net

    # Data: image labels are not needed, the seeds have them
    images = ImageSet(config.data, infer.image_list)
    seeds = config.seeds.path()
    require_maps(images, seeds, "the inference script of the seeds' method, with --dict")
    thresholds = seed_thresholds(config.seeds, class_names(config.data))

    # Model
    model = affinity_net(config.model)
    weights = load_network(setup, images, model)

    # Masks
    settings = {
        **weights, **source_settings(seeds, thresholds), **vars(config.walk), "radius": config.model.radius,
        "batch_size": infer.batch_size, "precision": runtime.precision,
    }  # fmt: skip
    stamp = stamp_of(MASKS, setup.method, settings, images, seeds)
    folder = MaskFolder(run.masks, stamp, runtime, setup.args.overwrite)
    masks = pseudo_masks(model, images, seeds, config, runtime, folder.is_done, thresholds)
    write_each(images, folder, masks, processes)

    # Score
    if infer.eval_list:
        result = score_folder(
            folder.path, "png", config.data, infer.eval_list, EvalConfig(), processes, infer.num_workers
        )
        report(result, run, MASK_SCORES, processes)
    stop_processes()


if __name__ == "__main__":
    run_script(main)
