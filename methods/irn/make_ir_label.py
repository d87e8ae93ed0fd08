"""Makes the labels that IRN is trained on, of any method's seeds: experiment/NAME/ir_label/<id>.png.

python methods/irn/make_ir_label.py --name irn --seeds experiment/exp/dict                        as published for CTI
python methods/irn/make_ir_label.py --name irn --seeds experiment/exp/dict --exp irn_crt          with CRT's thresholds
torchrun --nproc_per_node 2 methods/irn/make_ir_label.py --name irn --seeds experiment/exp/dict   two processes

An interrupted call goes on where it stopped. Then: methods/irn/train_irn.py, methods/irn/infer_irn.py.
"""

from tqdm import tqdm

from common.crf import crf_backend
from common.data.dataset import ImageSet
from common.dist import stop_processes
from common.errors import run_script
from common.pool import WorkerPool
from common.refine import require_maps, seed_settings
from common.runtime import usable_workers
from common.script import PREPARATION, start
from common.segment import MaskFolder
from methods.irn.config import IRNConfig
from methods.irn.labels import write_label
from methods.irn.scoring import report_labels

READS = ("data", "seeds", "labels", "train.image_list", "runtime.num_workers")


def main() -> None:
    """Goes in the order config, images, seeds, labels; then their score."""
    setup = start(__doc__, IRNConfig, "irn_cti", PREPARATION, reads=READS)
    config, processes, runtime = setup.config, setup.processes, setup.runtime

    # Images and seeds
    images, seeds = ImageSet(config.data, config.train.image_list, with_labels=False), config.seeds.path()
    require_maps(images, seeds, "the inference of the seeds, with --dict")
    crf_backend(config.labels.crf)
    settings = {**seed_settings(seeds), **config.labels.settings()}
    folder = MaskFolder(setup.run.path / "ir_label", settings, runtime, setup.args.overwrite)

    # Labels: a GPU computes the CRF from within this process
    share = processes.shard(list({image_id: index for index, image_id in enumerate(images.ids)}.items()))
    share = [(image_id, index) for image_id, index in share if not folder.is_done(image_id)]
    workers = usable_workers(config.runtime.num_workers) if config.labels.crf.device == "cpu" else 0
    with WorkerPool(workers, "label") as pool:
        for image_id, index in tqdm(share, "labels", disable=not processes.is_main, leave=False, dynamic_ncols=True):
            pool.submit(write_label, images.images[index], seeds, image_id, folder.file(image_id), config.labels)
    made = sum(processes.gather_objects(len(share)))
    if processes.is_main:
        print(f"{folder.path}: {made} label maps written, {len(set(images.ids)) - made} were there")

    # Score
    report_labels(folder, config.data, config.train.image_list, setup.run, runtime, config.runtime.num_workers)
    if processes.is_main:
        print(f"Training: python methods/irn/train_irn.py --name {setup.run.name}")
    stop_processes()


if __name__ == "__main__":
    run_script(main)
