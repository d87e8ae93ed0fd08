"""Writes CRT's seeds, from the DeiT alone: at the images' size, and at a quarter of it as IRN takes them.

python methods/crt/make_cam.py --name exp --dict                                   seeds of the run's last epoch
python methods/crt/make_cam.py --name exp --load_epo 4 --dict                         of epoch 4
python methods/crt/make_cam.py --name new --load_pretrained deits_cam.pth --dict      of the released weights
python methods/crt/make_cam.py --name exp --dict --vis --crf                       with pictures and dense CRF
python methods/crt/make_cam.py --name exp                                          only the score, nothing written
torchrun --nproc_per_node 2 methods/crt/make_cam.py --name exp --dict              shared by two processes

Two folders in experiment/NAME/: dict/<id>.npy, which is scored, drawn and refined, and cam/<id>.npy; with
``--dict_dir other`` they are other/ and other_cam/. An interrupted call goes on.
"""

import functools
from pathlib import Path
from typing import Any

import torch

from common.data.dataset import ImageSet
from common.errors import run_script
from common.infer import MapsOf, SeedFolder, image_batches
from common.infer_script import run_inference
from common.runtime import Runtime
from common.script import Setup
from common.seeds import BackgroundWriter, Seed, write_seed
from methods.crt.cams import CRTInferConfig, crt_cams, seed_maps
from methods.crt.config import CRTConfig, strided_path
from methods.crt.model import DeiTBranch, released_deit, tiled_deit


def main() -> None:
    """Seeds by `seed_maps`, written at two sizes; the steps are those of `common.infer_script`."""
    run_inference(
        __doc__, CRTConfig, "crt_2022", lambda config, classes: tiled_deit(config.model, classes), released_deit,
        maps_of=seed_maps, write=write_folders,
    )  # fmt: skip


class StridedFolder(SeedFolder):
    """Where the maps for IRN go, which are small already."""

    def write(self, image_id: str, seed: Seed) -> None:
        """Writes one image's maps at the size they have."""
        write_seed(self.path, image_id, seed, self.format, stride=1)


def write_folders(
    setup: Setup, model: DeiTBranch, images: ImageSet, weights: dict[str, Any], maps_of: MapsOf
) -> Path:  # fmt: skip
    """Writes both folders of an image set; that of the seeds at the images' size is returned.

    Args:
        weights: what identifies them, for the folders' settings.
        maps_of: not used: `crt_cams` gives both sizes at once.
    """
    infer, runtime, path = setup.config.infer, setup.runtime, setup.run.path / setup.args.dict_dir
    seeds = SeedFolder(path, weights, infer, runtime, setup.args.overwrite)
    strided = StridedFolder(strided_path(path), weights, infer, runtime, setup.args.overwrite)
    written = write_cams(model, images, infer, runtime, seeds, strided)
    if setup.processes.is_main:
        print(f"{seeds.path}, {strided.path}: {written} seeds written, {len(set(images.ids)) - written} were there")
    return seeds.path


def write_cams(
    model: DeiTBranch, images: ImageSet, infer: CRTInferConfig, runtime: Runtime, seeds: SeedFolder,
    strided: StridedFolder,
) -> int:  # fmt: skip
    """Writes what is not there yet of an image set's two folders; the work is shared by all processes.

    Returns:
        How many images were worked on, by all processes together.
    """

    def is_done(image_id: str) -> bool:
        return seeds.is_done(image_id) and strided.is_done(image_id)

    count = 0
    batches = image_batches(images, infer.batch_size, infer.num_workers, runtime, is_done, "seeds", infer.transform())
    with BackgroundWriter() as writer:
        for indices, views in batches:
            labels = torch.from_numpy(images.labels[indices])
            with runtime.autocast():
                found = crt_cams(model, views, labels, infer)
            for index, cams, label in zip(indices, found, labels, strict=True):
                keys = label.nonzero().flatten().tolist()
                for folder, maps in ((seeds, cams.high_res), (strided, cams.strided)):
                    seed = dict(zip(keys, maps.cpu().numpy(), strict=True))
                    writer.submit(functools.partial(folder.write, images.ids[index], seed))
            count += len(indices)
    return sum(runtime.processes.gather_objects(count))


if __name__ == "__main__":
    run_script(main)
