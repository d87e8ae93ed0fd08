"""Segments images with DeepLabV2: scales, dense CRF, scores, and the archive for VOC's server.

python methods/deeplab/test_deeplab.py --name exp --crf                               VOC val, the run's last weights
python methods/deeplab/test_deeplab.py --name exp --load_epo 5000 --crf                  of iteration 5000
python methods/deeplab/test_deeplab.py --name new --load_pretrained released.pth --crf   of a released checkpoint
python methods/deeplab/test_deeplab.py --name exp --crf infer.clean_image=true           the CRF sees the image itself
python methods/deeplab/test_deeplab.py --name ms --load_pretrained experiment/exp/ckpt/checkpoint_final.pth \\
    "infer.scales=[0.5, 0.75, 1.0, 1.25, 1.5]" infer.flip=max                         more scales and mirror images
python methods/deeplab/test_deeplab.py --name exp --crf --infer_list test --submission   VOC test: no masks
torchrun --nproc_per_node 2 methods/deeplab/test_deeplab.py --name exp --crf          shared by two processes

Masks go to experiment/NAME/segs/<list>/ and, after the CRF, to segs_crf/<list>/; an interrupted run goes on.
"""

from common.data.classes import BACKGROUND
from common.data.dataset import ImageSet, class_names
from common.dist import stop_processes
from common.errors import UserError, run_script
from common.files import write_json
from common.infer_script import load_network
from common.scoring import has_masks
from common.script import Setup, start_segmentation
from common.segment import MaskFolders, open_mask_folders, score_masks, write_masks
from common.submission import write_submission
from methods.deeplab.config import WEIGHTS_FILE, DeepLabConfig
from methods.deeplab.crf_image import clean_image, wrapped_image
from methods.deeplab.model import DeepLab
from methods.deeplab.scores import segmentation_scores
from methods.deeplab.views import input_transform
from methods.deeplab.weights import released


def main() -> None:
    """Goes in the order config, data, model, masks; then scores and submission."""
    setup = start_segmentation(__doc__, DeepLabConfig, "deeplab_voc")
    args, config, run, processes, runtime = setup.args, setup.config, setup.run, setup.processes, setup.runtime
    infer = config.infer
    if args.submission and config.data.dataset != "voc12":
        raise UserError(f"--submission is for VOC's server; the data set is {config.data.dataset}")

    # Data: no labels are needed
    images = ImageSet(config.data, infer.image_list, with_labels=False)
    is_scored = has_masks(images)

    # Model
    model = DeepLab(config.model, len(class_names(config.data)) + 1)
    weights = load_network(setup, images, model, released, WEIGHTS_FILE, "iteration")
    weights |= {"input": config.views.input, "network scales": list(config.model.scales)}

    # Masks. The quirk of the published CRF is about Caffe's input.
    crf_image = clean_image if infer.clean_image or config.views.input != "caffe" else wrapped_image
    folders = open_mask_folders(run, images.list_name, infer, weights, runtime, args.crf, args.overwrite, crf_image)
    count = write_masks(model, images, infer, runtime, folders, input_transform(config.views.input))
    if processes.is_main:
        print(f"{folders.final.path}: {count} masks written, {len(set(images.ids)) - count} were there")

    # Scores and submission
    if is_scored:
        report_scores(setup, folders, images)
    elif processes.is_main:
        print(f"not scored: no masks of {images.list_name!r}, such as {images.mask_path(images.ids[0])}")
    if args.submission and processes.is_main:
        masks, files = folders.final.path, dict(zip(images.ids, images.images, strict=True))
        archive = run.path / f"{args.submission}_{masks.name}.tar"
        write_submission(masks, files, archive, args.submission)
        print(f"{archive}: {len(files)} masks for VOC's server")
    stop_processes()


def report_scores(setup: Setup, folders: MaskFolders, images: ImageSet) -> None:
    """Prints the scores before and after the CRF; writes them as the reference does, ``scores.json`` and
    ``scores_crf.json``, and as the evaluator does, ``eval_png.*`` and ``eval_png_crf.*``.
    """
    for suffix, folder in {"": folders.plain, **({"_crf": folders.refined} if folders.refined else {})}.items():
        result = score_masks(folder, images, setup.runtime, setup.config.infer.num_workers)
        if setup.processes.is_main:
            scores, path = segmentation_scores(result.counts), setup.run.path
            result.write(path, f"eval_png{suffix}")
            write_json(path / f"scores{suffix}.json", scores.as_dict([BACKGROUND, *result.classes]))
            print(f"{folder.path}: {scores}; {result.images} images, {path}/scores{suffix}.json")


if __name__ == "__main__":
    run_script(main)
