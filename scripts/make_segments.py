"""Makes segments of images: regions without classes, over which methods/segments/vote.py lets seeds vote.

python scripts/make_segments.py --name segments --with meanshift                       of VOC's train_aug
python scripts/make_segments.py --name segments --with slic --infer_list train segments.slic.count=300   another list
python scripts/make_segments.py --name sam --with sam segments.sam.weights=pretrained/sam-vit-base   extra supervision
torchrun --nproc_per_node 2 scripts/make_segments.py --name segments --with meanshift    shared by two processes

Files are experiment/NAME/segments/<id>.npz, of sam, sam2 and sam3 <id>.json. An interrupted call goes on where it
stopped, and segments of other settings are not mixed. Segment-anything models were trained on masks: whatever is made
with their segments has extra supervision, and tables must say so. They need the package transformers.
"""

from typing import Any

from common.run.errors import run_script
from common.run.script import SEGMENTING, start
from methods.segments.config import SegmentsConfig

READS = ("data", "segments", "infer.image_list", "runtime.device", "runtime.num_workers")


def main() -> None:
    """Goes in the order config, data, segments."""
    setup = start(__doc__, SegmentsConfig, "segments_voc", SEGMENTING, reads=READS)
    config, run, processes, runtime = setup.config, setup.run, setup.processes, setup.runtime
    made_by = config.segments

    from common.data.dataset import ImageSet
    from common.data.outputs import write_by_jobs, write_each
    from common.data.stamp import SEGMENTS, stamp_of
    from common.run.pool import WorkerPool, usable_workers
    from common.run.processes import stop_processes
    from common.run.script import start_run
    from methods.segments.folders import LabelMapFolder, RegionFolder
    from methods.segments.makers import write_label_map
    from methods.segments.sam import generated, mask_generator

    # Data
    images = ImageSet(config.data, config.infer.image_list)
    stamp = stamp_of(SEGMENTS, made_by.segmenter, made_by.settings(), images)

    # Segments
    if made_by.is_extra_supervision:
        generate = mask_generator(made_by.sam, runtime)
        regions = RegionFolder(run.segments, stamp, ("json",), runtime, setup.args.overwrite)
        start_run(run, config, processes, keep_config=True)
        processes.say("note: segment-anything models were trained on masks: their segments are extra supervision")
        write_each(images, regions, generated(generate, images, regions, made_by.sam.smallest, runtime), processes)
        return stop_processes()
    labels = LabelMapFolder(run.segments, stamp, ("npz",), runtime, setup.args.overwrite)
    start_run(run, config, processes, keep_config=True)

    def job(index: int) -> tuple[Any, ...]:
        return write_label_map, images.images[index], labels.file(images.ids[index]), made_by

    pool = WorkerPool(usable_workers(config.runtime.num_workers), made_by.segmenter)
    write_by_jobs(images, labels, job, pool, processes, made_by.segmenter)
    return stop_processes()


if __name__ == "__main__":
    run_script(main)
