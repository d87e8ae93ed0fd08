"""Writes the label maps that IRN is trained on, made from any method's seeds.

python methods/irn/make_ir_label.py --name irn --seeds experiment/exp/dict                     as published for CTI
python methods/irn/make_ir_label.py --name irn --seeds experiment/exp/dict --exp irn_crt       with CRT's thresholds
torchrun --nproc_per_node 2 methods/irn/make_ir_label.py --name irn --seeds experiment/exp/dict  shared by two processes

Files are experiment/NAME/ir_label/<id>.png. An interrupted call goes on where it stopped. Then:
methods/irn/train_irn.py, methods/irn/infer_irn.py.
"""

from typing import Any

from common.run.errors import run_script
from common.run.script import PREPARATION, start
from methods.irn.config import IRNConfig

READS = ("data", "seeds", "labels", "train.image_list", "runtime.num_workers")


def main() -> None:
    """Goes in the order config, data, label maps; then their score."""
    setup = start(__doc__, IRNConfig, "irn_cti", PREPARATION, reads=READS)
    config, run, processes, runtime = setup.config, setup.run, setup.processes, setup.runtime
    num_workers = config.runtime.num_workers

    from common.crf.dense import crf_backend
    from common.data.dataset import ImageSet, class_names
    from common.data.outputs import MaskFolder, write_by_jobs
    from common.data.stamp import LABEL_MAPS, stamp_of
    from common.masks.from_seeds import require_maps, seed_thresholds, source_settings
    from common.run.pool import WorkerPool, usable_workers
    from common.run.processes import stop_processes
    from methods.irn.labels import write_label
    from methods.irn.scoring import report_labels

    # Data: image labels are not needed, the seeds have them
    images = ImageSet(config.data, config.train.image_list)
    seeds = config.seeds.path()
    require_maps(images, seeds, "the inference script of the seeds' method, with --dict")
    thresholds = seed_thresholds(config.seeds, class_names(config.data)) if config.seeds.thresholds else {}
    crf_backend(config.labels.crf)  # an error, if there is none, comes before the work

    # Label maps: a GPU computes the CRF from within this process
    processes.on_main(run.lock)
    settings = {**source_settings(seeds, thresholds), **config.labels.settings()}
    stamp = stamp_of(LABEL_MAPS, setup.method, settings, images, seeds)
    folder = MaskFolder(run.labels, stamp, runtime, setup.args.overwrite)

    def job(index: int) -> tuple[Any, ...]:
        image_id = images.ids[index]
        return write_label, images.file(index), seeds, image_id, folder.file(image_id), config.labels, thresholds

    workers = usable_workers(num_workers) if config.labels.crf.device == "cpu" else 0
    write_by_jobs(images, folder, job, WorkerPool(workers, "label"), processes, "labels")

    # Score
    report_labels(folder, config.data, config.train.image_list, run, processes, num_workers)
    processes.say(f"Training: python methods/irn/train_irn.py --name {run.name}")
    stop_processes()


if __name__ == "__main__":
    run_script(main)
