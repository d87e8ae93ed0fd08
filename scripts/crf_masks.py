"""Turns seeds into pseudo masks by a dense CRF alone, and scores them: experiment/NAME/masks/<id>.png.

python scripts/crf_masks.py --name crf --seeds experiment/exp/dict                       masks of VOC's train_aug
python scripts/crf_masks.py --name crf --seeds experiment/exp/dict --alpha 4 --infer_list train
python scripts/crf_masks.py --name crf --seeds experiment/exp/dict crf.device=cuda crf.backend=lattice  on a GPU
torchrun --nproc_per_node 2 scripts/crf_masks.py --name crf --seeds experiment/exp/dict  shared by two processes

An interrupted call goes on where it stopped. Exponents are compared by the score of the masks: 4 to 24 are usual.
"""

from tqdm import tqdm

from common.crf import crf_pool
from common.crf_masks import CRFMasksConfig, write_crf_mask
from common.data.dataset import ImageSet, class_names
from common.dist import stop_processes
from common.errors import run_script
from common.refine import report_pseudo_masks, require_maps, seed_settings
from common.runtime import usable_workers
from common.script import PREPARATION, start, start_run
from common.segment import MaskFolder

READS = ("data", "seeds", "crf", "infer", "runtime.num_workers")


def main() -> None:
    """Goes in the order config, data, seeds, masks; then their score."""
    setup = start(__doc__, CRFMasksConfig, "crf_voc", PREPARATION, reads=READS)
    config, run, processes, runtime = setup.config, setup.run, setup.processes, setup.runtime

    # Data: image labels are not needed, the seeds have them
    images, seeds = ImageSet(config.data, config.infer.image_list, with_labels=False), config.seeds.path()
    require_maps(images, seeds, "the inference script of the seeds' method, with --dict")
    settings = {**seed_settings(seeds), **config.crf.settings()}
    folder = MaskFolder(run.path / "masks", settings, runtime, setup.args.overwrite)
    start_run(run, config, processes)

    # Masks
    first_of = {image_id: index for index, image_id in reversed(list(enumerate(images.ids)))}
    share, classes = processes.shard(sorted(first_of.values())), len(class_names(config.data))
    share = [index for index in share if not folder.is_done(images.ids[index])]
    with crf_pool(usable_workers(config.runtime.num_workers), config.crf) as pool:
        for index in tqdm(share, "dense CRF", disable=not processes.is_main, leave=False, dynamic_ncols=True):
            image_id = images.ids[index]
            job = images.images[index], image_id, seeds, folder.file(image_id), config.crf, classes
            pool.submit(write_crf_mask, *job)
    written = sum(processes.gather_objects(len(share)))
    if processes.is_main:
        print(f"{folder.path}: {written} masks written, {len(first_of) - written} were there")

    # Score
    if config.infer.eval_list:
        report_pseudo_masks(folder, config.data, config.infer.eval_list, run, runtime, config.runtime.num_workers)
    stop_processes()


if __name__ == "__main__":
    run_script(main)
