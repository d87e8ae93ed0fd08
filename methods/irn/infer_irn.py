"""Makes pseudo masks: a random walk from the seeds along IRN's affinities, experiment/NAME/masks/<id>.png.

python methods/irn/infer_irn.py --name irn --seeds experiment/exp/dict                          train_aug
python methods/irn/infer_irn.py --name irn --seeds experiment/exp/dict --infer_list train       another list
python methods/irn/infer_irn.py --name irn --seeds experiment/exp/dict --load_pretrained res50_irn.pth   other weights
torchrun --nproc_per_node 2 methods/irn/infer_irn.py --name irn --seeds experiment/exp/dict     two processes

An interrupted call goes on where it stopped.
"""

import functools
from pathlib import Path

import torch

from common.data.dataset import ImageSet, class_names
from common.data.masks import write_mask
from common.dist import stop_processes
from common.errors import run_script
from common.infer import image_batches
from common.infer_script import load_network
from common.refine import report_pseudo_masks, require_maps, seed_settings
from common.runtime import Runtime
from common.script import REFINEMENT, start
from common.seeds import BackgroundWriter
from common.segment import MaskFolder
from methods.irn.config import WEIGHTS_FILE, IRNConfig
from methods.irn.model import IRN, unique_tensors
from methods.irn.walk import boundaries, read_scores, walk_mask

READS = ("data", "seeds", "model", "walk", "infer", "runtime")


def main() -> None:
    """Goes in the order config, images, model, masks; then their score."""
    setup = start(__doc__, IRNConfig, "irn_cti", REFINEMENT, reads=READS)
    config, run, runtime, infer = setup.config, setup.run, setup.runtime, setup.config.infer

    # Images and seeds
    images, seeds = ImageSet(config.data, infer.image_list, with_labels=False), config.seeds.path()
    require_maps(images, seeds, "the inference of the seeds, with --dict")

    # Model
    model = IRN(config.model)
    weights = load_network(setup, images, model, unique_tensors, WEIGHTS_FILE)

    # Masks
    settings = {
        **weights, **seed_settings(seeds), **config.walk.settings(), "canvas": infer.canvas,
        "batch_size": infer.batch_size, "precision": runtime.precision,
    }  # fmt: skip
    folder = MaskFolder(run.path / "masks", settings, runtime, setup.args.overwrite)
    made = write_masks(model, images, seeds, config, runtime, folder)
    if setup.processes.is_main:
        print(f"{folder.path}: {made} masks written, {len(set(images.ids)) - made} were there")

    # Score
    if infer.eval_list:
        report_pseudo_masks(folder, config.data, infer.eval_list, run, runtime, config.runtime.num_workers)
    stop_processes()


@torch.inference_mode()
def write_masks(
    model: IRN, images: ImageSet, seeds: Path, config: IRNConfig, runtime: Runtime, folder: MaskFolder
) -> int:
    """Writes the masks of an image set that are not there yet; the work is shared by all processes.

    Returns:
        How many images were worked on, by all processes together.
    """
    infer, classes, count = config.infer, len(class_names(config.data)), 0
    batches = image_batches(
        images, infer.batch_size, config.runtime.num_workers, runtime, folder.is_done, "random walk"
    )
    with BackgroundWriter() as writer:
        for indices, pixels in batches:
            with runtime.autocast():
                edges = boundaries(model.edge, pixels, infer.canvas)  # B h w
            size = tuple(pixels.shape[-2:])
            for index, edge in zip(indices, edges, strict=True):
                keys, scores = read_scores(seeds, images.ids[index], size, classes)
                mask = walk_mask(edge, keys, scores.to(runtime.device), size, config.walk)
                writer.submit(functools.partial(write_mask, folder.file(images.ids[index]), mask))
            count += len(indices)
    return sum(runtime.processes.gather_objects(count))


if __name__ == "__main__":
    run_script(main)
