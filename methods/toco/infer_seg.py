"""Segments images with ToCo: flips and scales, dense CRF, scores, and the archive for VOC's server.

python methods/toco/infer_seg.py --name exp --crf                                  VOC val, the run's best weights
python methods/toco/infer_seg.py --name exp --load_epo 20000 --crf                 of iteration 20000
python methods/toco/infer_seg.py --name new --load_pretrained voc_vit.pth --crf    of a released checkpoint
python methods/toco/infer_seg.py --name exp --crf --infer_list test --submission   VOC test: no masks, no labels
python methods/toco/infer_seg.py --name coco --crf                                 COCO val, for a run on COCO
torchrun --nproc_per_node 2 methods/toco/infer_seg.py --name exp --crf             shared by two processes

Masks are experiment/NAME/segs/<list>/<id>.png and, after the CRF, segs_crf/<list>/<id>.png. An interrupted call goes on
where it stopped.
"""

from common.run.errors import run_script
from common.run.papers import Instead
from common.run.script import MASKS, start
from methods.toco.config import PAPER, WEIGHTS_FILE, ToCoConfig

OF_PAPER = {**PAPER, "--model_path": Instead("--load_pretrained {} --crf", names_run=True)}  # its tool has the CRF, too
READS = ("data", "model", "infer.segment", "eval", "runtime")


def main() -> None:
    """Goes in the order config, data, model, masks; then scores and submission."""
    setup = start(
        __doc__, ToCoConfig, "toco_cvpr23", MASKS, reads=READS, file=WEIGHTS_FILE, unit="iteration", paper=OF_PAPER
    )
    args, config, run, processes, runtime = setup.args, setup.config, setup.run, setup.processes, setup.runtime
    infer = config.infer.segment

    from common.data.dataset import ImageSet, class_names
    from common.masks.network import open_mask_folders, report_masks, submit_masks, write_masks
    from common.nets.load import load_network
    from common.run.processes import stop_processes
    from common.score.images import has_masks
    from methods.toco.face import FACE

    # Data: image labels are not needed
    images = ImageSet(config.data, infer.image_list)
    has_masks(images)  # an error, if only some have masks, comes before the work

    # Model
    model = FACE.build(config, len(class_names(config.data)))
    weights = load_network(setup, images, model)

    # Masks
    folders = open_mask_folders(run, images, setup.method, infer, weights, runtime, args.crf, args.overwrite)
    write_masks(FACE.logits_of(model, config), images, infer, runtime, folders)

    # Scores and submission
    report_masks(folders, images, run, runtime, infer.num_workers)
    if args.submission and processes.is_main:
        submit_masks(folders, images, run, args.submission)
    stop_processes()


if __name__ == "__main__":
    run_script(main)
