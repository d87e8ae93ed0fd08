"""Segments images with DeepLabV2: scales, dense CRF, scores, and the archive for VOC's server.

python methods/deeplab/test_deeplab.py --name exp --crf                                  VOC val, the run's last weights
python methods/deeplab/test_deeplab.py --name exp --load_epo 5000 --crf                  of iteration 5000
python methods/deeplab/test_deeplab.py --name new --load_pretrained released.pth --crf   of a released checkpoint
python methods/deeplab/test_deeplab.py --name exp --crf --infer_list test --submission   VOC test: no masks, no labels
python methods/deeplab/test_deeplab.py --name exp --crf infer.clean_image=true           the CRF sees the image itself
python methods/deeplab/test_deeplab.py --name ms --load_pretrained experiment/exp/ckpt/checkpoint_final.pth \\
    "infer.scales=[0.5, 0.75, 1.0, 1.25, 1.5]" infer.flip=max                            more scales and mirror images
torchrun --nproc_per_node 2 methods/deeplab/test_deeplab.py --name exp --crf             shared by two processes

Masks are experiment/NAME/segs/<list>/<id>.png and, after the CRF, segs_crf/<list>/<id>.png. An interrupted call goes on
where it stopped.
"""

from common.run.errors import run_script
from common.run.script import MASKS, start
from methods.deeplab.config import WEIGHTS_FILE, DeepLabConfig


def main() -> None:
    """Goes in the order config, data, model, masks; then scores and submission."""
    setup = start(__doc__, DeepLabConfig, "deeplab_voc", MASKS, file=WEIGHTS_FILE, unit="iteration")
    args, config, run, runtime = setup.args, setup.config, setup.run, setup.runtime
    infer = config.infer

    from common.data.dataset import ImageSet, class_names
    from common.masks.network import open_mask_folders, write_masks
    from common.masks.scores import report_segmentation
    from common.nets.load import load_network
    from common.run.processes import stop_processes
    from common.score.images import has_masks
    from methods.deeplab.crf_image import clean_image, wrapped_image
    from methods.deeplab.face import FACE

    # Data: image labels are not needed
    images = ImageSet(config.data, infer.image_list)
    has_masks(images)  # an error, if only some have masks, comes before the work

    # Model
    model = FACE.build(config, len(class_names(config.data)))
    weights = load_network(setup, images, model, FACE.needed)
    weights |= {"input": config.views.input, "network scales": list(config.model.scales)}

    # Masks: with Caffe's input the published CRF sees a wrapped image
    crf_image = clean_image if infer.clean_image or config.views.input != "caffe" else wrapped_image
    folders = open_mask_folders(run, images, setup.method, infer, weights, runtime, args.crf, args.overwrite, crf_image)
    write_masks(FACE.logits_of(model, config), images, infer, runtime, folders, FACE.transform(config))

    # Scores and submission
    report_segmentation(folders, images, run, runtime, infer.num_workers, args.submission)
    stop_processes()


if __name__ == "__main__":
    run_script(main)
