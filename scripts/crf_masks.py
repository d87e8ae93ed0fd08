"""Turns seeds into pseudo masks by a dense CRF alone, and scores them.

python scripts/crf_masks.py --name crf --seeds experiment/exp/dict                       masks of VOC's train_aug
python scripts/crf_masks.py --name crf --seeds experiment/exp/dict --infer_list train --alpha 4      another list
python scripts/crf_masks.py --name crf --seeds experiment/exp/dict crf.device=cuda crf.backend=lattice   on a GPU
torchrun --nproc_per_node 2 scripts/crf_masks.py --name crf --seeds experiment/exp/dict   shared by two processes

Masks are experiment/NAME/masks/<id>.png. An interrupted call goes on where it stopped. Usual exponents are 4 to 24;
compare them by the score of the masks.
"""

from typing import Any

from common.masks.options import CRFMasksConfig
from common.run.errors import run_script
from common.run.folder import MASK_SCORES
from common.run.script import PREPARATION, start, start_run

READS = ("data", "seeds", "crf", "infer", "runtime.num_workers")


def main() -> None:
    """Goes in the order config, data, masks; then their score."""
    setup = start(__doc__, CRFMasksConfig, "crf_voc", PREPARATION, reads=READS)
    config, run, processes, runtime = setup.config, setup.run, setup.processes, setup.runtime
    infer, num_workers = config.infer, config.runtime.num_workers

    from common.crf.dense import crf_pool
    from common.data.dataset import ImageSet, class_names
    from common.data.outputs import MaskFolder, write_by_jobs
    from common.data.stamp import MASKS, stamp_of
    from common.masks.crf_job import write_crf_mask
    from common.masks.from_seeds import require_maps, seed_thresholds, source_settings
    from common.run.pool import usable_workers
    from common.run.processes import stop_processes
    from common.score.options import EvalConfig
    from common.score.report import report, score_folder

    # Data: image labels are not needed, the seeds have them
    images = ImageSet(config.data, infer.image_list)
    seeds = config.seeds.path()
    classes = class_names(config.data)
    thresholds = seed_thresholds(config.seeds, classes)
    require_maps(images, seeds, "the inference script of the seeds' method, with --dict")

    # Masks
    settings = {**source_settings(seeds, thresholds), **config.crf.settings()}
    stamp = stamp_of(MASKS, setup.method, settings, images, seeds)
    folder = MaskFolder(run.masks, stamp, runtime, setup.args.overwrite)
    start_run(run, config, processes)

    def job(index: int) -> tuple[Any, ...]:
        image_id = images.ids[index]
        of_seed = image_id, seeds, folder.file(image_id), config.crf, len(classes), thresholds
        return write_crf_mask, images.file(index), *of_seed

    write_by_jobs(images, folder, job, crf_pool(usable_workers(num_workers), config.crf), processes, "dense CRF")

    # Score
    if infer.eval_list:
        result = score_folder(folder.path, "png", config.data, infer.eval_list, EvalConfig(), processes, num_workers)
        report(result, run, MASK_SCORES, processes)
    stop_processes()


if __name__ == "__main__":
    run_script(main)
