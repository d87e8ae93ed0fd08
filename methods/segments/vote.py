"""Averages seeds over segments, and makes pseudo masks of them.

python methods/segments/vote.py --name x --seeds experiment/exp/dict --segments experiment/segments/segments
python methods/segments/vote.py --name x --seeds experiment/exp/dict --segments sam_masks --vote max     another rule
python methods/segments/vote.py --name x --seeds experiment/exp/dict --segments none --tune_on x.txt   no vote
torchrun --nproc_per_node 2 methods/segments/vote.py --name x --seeds experiment/exp/dict    shared by two processes

Segments are regions without classes, of scripts/make_segments.py or any other source: a folder of label maps (.npz,
.png) or run lengths (.json), or one JSON as COCO's; without --segments, experiment/NAME/segments. The seeds after the
vote are experiment/NAME/dict, for every script that takes seeds; their masks are experiment/NAME/masks. An interrupted
call goes on where it stopped.
"""

from typing import Any

from common.run.errors import run_script
from common.run.folder import MASK_SCORES, SEED_SCORES
from common.run.script import PREPARATION, start
from methods.segments.config import SegmentsConfig

READS = ("data", "seeds", "segments.folder", "vote", "infer", "eval", "runtime.num_workers")


def main() -> None:
    """Goes in the order config, data, thresholds, seeds and masks; then their scores."""
    setup = start(__doc__, SegmentsConfig, "segments_voc", PREPARATION, reads=READS)
    config, run, processes = setup.config, setup.run, setup.processes
    infer, num_workers = config.infer, config.runtime.num_workers

    from common.data.dataset import ImageSet, class_names
    from common.data.outputs import write_by_jobs
    from common.masks.from_seeds import require_maps
    from common.run.pool import WorkerPool, usable_workers
    from common.run.processes import stop_processes
    from common.run.script import start_run
    from common.score.report import report, score_folder
    from methods.segments.folders import open_vote_folders
    from methods.segments.jobs import write_vote
    from methods.segments.source import VoteSource
    from methods.segments.tuning import class_thresholds

    # Data: image labels are not needed, the seeds have them
    images = ImageSet(config.data, infer.image_list)
    source = VoteSource(config, run.segments, len(class_names(config.data)))
    require_maps(images, source.seeds, "the inference script of the seeds' method, with --dict")
    source.require(images)

    # Thresholds
    thresholds = class_thresholds(source, config, run, processes)

    # Seeds and masks
    settings = source.settings(thresholds)
    folders = open_vote_folders(
        run, images, source, settings, config.vote.format, setup.runtime, setup.args.overwrite
    )
    start_run(run, config, processes)

    def job(index: int) -> tuple[Any, ...]:
        image_id = images.ids[index]
        inputs = source.inputs(image_id, images.file(index))
        return write_vote, inputs, folders.seeds.path, folders.masks.file(image_id), config.vote, thresholds

    write_by_jobs(images, folders, job, WorkerPool(usable_workers(num_workers), "voting"), processes, "vote")

    # Scores
    if infer.eval_list:
        scored = (folders.seeds.path, "cam", SEED_SCORES), (folders.masks.path, "png", MASK_SCORES)
        for folder, task, stem in scored:
            result = score_folder(folder, task, config.data, infer.eval_list, config.eval, processes, num_workers)
            report(result, run, stem, processes)
    stop_processes()


if __name__ == "__main__":
    run_script(main)
