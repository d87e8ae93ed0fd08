"""Segments images with the ViT segmenter: flips, scales, windows, dense CRF, scores, the archive for VOC's server.

python methods/vitseg/test_vitseg.py --name exp --crf                                  VOC val, the run's last weights
python methods/vitseg/test_vitseg.py --name exp --load_epo 5000 --crf                  of iteration 5000
python methods/vitseg/test_vitseg.py --name exp --crf infer.window=448                 sliding windows
python methods/vitseg/test_vitseg.py --name exp --crf --infer_list test --submission   VOC test: no masks, no labels
torchrun --nproc_per_node 2 methods/vitseg/test_vitseg.py --name exp --crf             shared by two processes

Masks are experiment/NAME/segs/<list>/<id>.png and, after the CRF, segs_crf/<list>/<id>.png. An interrupted call goes on
where it stopped.
"""

from common.run.errors import run_script
from common.run.script import MASKS, start
from methods.vitseg.config import WEIGHTS_FILE, VitSegConfig


def main() -> None:
    """Goes in the order config, data, model, masks; then scores and submission."""
    setup = start(__doc__, VitSegConfig, "vitseg_voc", MASKS, file=WEIGHTS_FILE, unit="iteration")
    args, config, run, runtime = setup.args, setup.config, setup.run, setup.runtime
    infer = config.infer

    from common.data.dataset import ImageSet, class_names
    from common.masks.network import open_mask_folders, write_masks
    from common.masks.scores import report_segmentation
    from common.nets.load import load_network
    from common.run.processes import stop_processes
    from common.score.images import has_masks
    from methods.vitseg.face import FACE

    # Data: image labels are not needed
    images = ImageSet(config.data, infer.image_list)
    has_masks(images)  # an error, if only some have masks, comes before the work

    # Model, masks
    model = FACE.build(config, len(class_names(config.data)))
    weights = load_network(setup, images, model)
    folders = open_mask_folders(run, images, setup.method, infer, weights, runtime, args.crf, args.overwrite)
    write_masks(FACE.logits_of(model, config), images, infer, runtime, folders, FACE.transform(config))

    # Scores and submission
    report_segmentation(folders, images, run, runtime, infer.num_workers, args.submission)
    stop_processes()


if __name__ == "__main__":
    run_script(main)
