"""Refines seeds to pseudo masks by random walks along AffinityNet's affinities, and scores them.

python methods/psa/infer_aff.py --name psa --seeds experiment/exp/dict              masks of VOC's train_aug
python methods/psa/infer_aff.py --name psa --seeds experiment/exp/dict --infer_list train --bg_thr 0.45
python methods/psa/infer_aff.py --name new --load_pretrained resnet38_aff.pth --seeds experiment/exp/dict
torchrun --nproc_per_node 2 methods/psa/infer_aff.py --name psa --seeds experiment/exp/dict  shared by two processes

They go to experiment/NAME/masks/ as palette PNGs; an interrupted run goes on.
"""

import functools
from pathlib import Path

import torch

from common.data.dataset import ImageSet, class_names
from common.data.masks import write_mask
from common.dist import stop_processes
from common.errors import UserError, run_script
from common.infer import image_batches
from common.infer_script import load_network
from common.refine import read_maps, report_pseudo_masks, require_maps, seed_settings
from common.runtime import Runtime
from common.script import REFINEMENT, start
from common.seeds import BackgroundWriter
from common.segment import MaskFolder
from methods.psa.affinity import AffinityNet
from methods.psa.config import MASKS_DIR, PSAConfig
from methods.psa.model import affinity_net
from methods.psa.walk import padded, pseudo_mask


def main() -> None:
    """Goes in the order config, data, model, masks; then their score."""
    reads = ("data", "seeds", "model.arch", "model.radius", "walk", "infer", "runtime.device", "runtime.precision")
    setup = start(__doc__, PSAConfig, "psa_voc", REFINEMENT, reads=reads)
    config, run, processes, runtime = setup.config, setup.run, setup.processes, setup.runtime

    # Data: image labels are not needed, the seeds have them
    images, seeds = ImageSet(config.data, config.infer.image_list, with_labels=False), config.seeds.path()
    require_maps(images, seeds, "the inference script of the seeds' method, with --dict")

    # Model
    model = affinity_net(config.model)
    weights = load_network(setup, images, model)

    # Masks
    settings = {
        **weights, **seed_settings(seeds), **vars(config.walk), "radius": config.model.radius,
        "batch_size": config.infer.batch_size, "precision": runtime.precision,
    }  # fmt: skip
    folder = MaskFolder(run.path / MASKS_DIR, settings, runtime, setup.args.overwrite)
    written = write_pseudo_masks(model, images, seeds, config, runtime, folder)
    if processes.is_main:
        print(f"{folder.path}: {written} masks written, {len(set(images.ids)) - written} were there")

    # Score
    if config.infer.eval_list:
        report_pseudo_masks(folder, config.data, config.infer.eval_list, run, runtime, config.infer.num_workers)
    stop_processes()


def write_pseudo_masks(
    model: AffinityNet, images: ImageSet, seeds: Path, config: PSAConfig, runtime: Runtime, folder: MaskFolder
) -> int:
    """Writes the masks of an image set that are not there yet; the work is shared by all processes.

    Returns:
        How many were written, by all processes together.
    """
    infer, classes, count = config.infer, len(class_names(config.data)), 0
    batches = image_batches(images, infer.batch_size, infer.num_workers, runtime, folder.is_done, "masks")
    with BackgroundWriter() as writer, torch.inference_mode():
        for indices, pixels in batches:
            size = tuple(pixels.shape[-2:])
            with runtime.autocast():
                features = model(padded(pixels, model.stride))  # b c h w
            for index, cells in zip(indices, features, strict=True):
                image_id = images.ids[index]
                seed = read_maps(seeds, image_id, size)
                if seed and not 0 <= min(seed) <= max(seed) < classes:
                    raise UserError(f"the seed of {image_id} in {seeds} has classes {list(seed)} of {classes}")
                mask = pseudo_mask(seed, size, cells, model.stride, config.model.radius, config.walk)
                writer.submit(functools.partial(write_mask, folder.file(image_id), mask))
            count += len(indices)
    return sum(runtime.processes.gather_objects(count))


if __name__ == "__main__":
    run_script(main)
