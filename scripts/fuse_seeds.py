"""Fuses the seeds of several runs: other methods, epochs, scales or random seeds.

python scripts/fuse_seeds.py --name fused A B                                   mean of experiment/{A,B}/dict
python scripts/fuse_seeds.py --name fused A B C --how vote --thresholds 0.2 0.25 0.4    by the most frequent label
python scripts/fuse_seeds.py --name fused A other/folder --weights 2 1 --infer_list val infer.eval_list=val
python scripts/fuse_seeds.py --name fused A B C --search minival                try pairs and rules, fuse nothing
torchrun --nproc_per_node 2 scripts/fuse_seeds.py --name fused A B              shared by two processes

Words without = are runs. The fused seeds are experiment/NAME/dict, for every script that takes seeds; the number of
runs that agree on a pixel's label is experiment/NAME/agreement/<id>.npz. An interrupted call goes on where it stopped.
--search refuses images of the list that is scored (infer.eval_list): a choice made on them would be no result.
"""

from typing import Any

from common.run.errors import run_script
from common.run.folder import SEED_SCORES
from common.run.script import FUSION, start
from methods.fusion.config import FusionConfig

READS = ("data", "fuse", "infer", "eval", "runtime.num_workers")


def main() -> None:
    """Goes in the order config, data, seeds; then their score."""
    setup = start(__doc__, FusionConfig, "fusion_voc", FUSION, reads=READS)
    config, run, processes, runtime = setup.config, setup.run, setup.processes, setup.runtime
    infer, how, num_workers = config.infer, config.fuse.how, config.runtime.num_workers
    runs = config.fuse.sources()

    from common.data.dataset import ImageSet, class_names
    from common.data.outputs import write_by_jobs
    from common.masks.from_seeds import require_maps
    from common.run.pool import WorkerPool, usable_workers
    from common.run.processes import stop_processes
    from common.run.script import start_run
    from common.score.report import report, score_folder
    from methods.fusion.folders import open_fusion_folders
    from methods.fusion.jobs import Inputs, write_fused
    from methods.fusion.search import search

    if setup.args.search:
        search(runs, setup.args.search, config, run, processes)
        return stop_processes()

    # Data: image labels are not needed, the seeds have them
    images = ImageSet(config.data, infer.image_list)
    classes = len(class_names(config.data))
    for source in runs:
        require_maps(images, source.folder, "the inference script of the run's method, with --dict")

    # Seeds
    folders = open_fusion_folders(run, images, config.fuse, runs, runtime, setup.args.overwrite)
    start_run(run, config, processes)

    def job(index: int) -> tuple[Any, ...]:
        inputs = Inputs(images.ids[index], images.images[index], classes)
        return write_fused, runs, inputs, how, folders.seeds.path, folders.agreement.path, config.fuse.format

    write_by_jobs(images, folders, job, WorkerPool(usable_workers(num_workers), "fusion"), processes, how)

    # Score
    if infer.eval_list:
        seeds = folders.seeds.path
        result = score_folder(seeds, "cam", config.data, infer.eval_list, config.eval, processes, num_workers)
        report(result, run, SEED_SCORES, processes)
    return stop_processes()


if __name__ == "__main__":
    run_script(main)
