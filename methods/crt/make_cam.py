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

import torch

from common.data.dataset import ImageSet
from common.dist import stop_processes
from common.errors import run_script
from common.infer import SeedFolder, image_batches
from common.infer_script import load_network
from common.runtime import Runtime
from common.scoring import report_seeds, score_folder, score_seeds, scored_images
from common.script import start_inference
from common.seed_products import draw_seeds, refine_by_crf
from common.seeds import BackgroundWriter, Seed, write_seed
from methods.crt.cams import CRTInferConfig, crt_cams, seed_maps
from methods.crt.config import CRTConfig
from methods.crt.model import DeiTBranch, released_deit, tiled_deit


def main() -> None:
    """Goes in the order config, data, model, seeds; then CRF, pictures, score."""
    setup = start_inference(__doc__, CRTConfig, "crt_2022")
    args, config, run, processes, runtime = setup.args, setup.config, setup.run, setup.processes, setup.runtime
    infer = config.infer

    # Data: without --dict nothing is stored, so only the images that are scored are of use
    if args.dict:
        images = ImageSet(config.data, infer.image_list)
    else:
        images = scored_images(config.data, infer.eval_list or infer.image_list, config.eval)

    # Model
    model = tiled_deit(config.model, len(images.classes))
    weights = load_network(setup, images, model, released_deit)

    if not args.dict:
        report_seeds(score_seeds(seed_maps(model, infer), images, infer, config.eval, runtime), run, runtime)
        return stop_processes()

    # Seeds, and what is made of them
    seeds = SeedFolder(run.path / args.dict_dir, weights, infer, runtime, args.overwrite)
    strided = StridedFolder(strided_path(seeds.path), weights, infer, runtime, args.overwrite)
    written = write_cams(model, images, infer, runtime, seeds, strided)
    if processes.is_main:
        print(f"{seeds.path}, {strided.path}: {written} seeds written, {len(set(images.ids)) - written} were there")
    if args.crf:
        refine_by_crf(images, seeds.path, run.path / "crf", infer, processes)
    if args.vis:
        draw_seeds(images, seeds.path, run.path / "vis", infer, processes)
    if infer.eval_list:
        report_seeds(
            score_folder(seeds.path, images, infer.eval_list, config.eval, runtime, infer.num_workers), run, runtime
        )
    return stop_processes()


class StridedFolder(SeedFolder):
    """Where the maps for IRN go, which are small already."""

    def write(self, image_id: str, seed: Seed) -> None:
        """Writes one image's maps at the size they have."""
        write_seed(self.path, image_id, seed, self.format, stride=1)


def strided_path(seeds: Path) -> Path:
    """The folder of the strided maps beside one of seeds."""
    return seeds.parent / ("cam" if seeds.name == "dict" else f"{seeds.name}_cam")


def write_cams(
    model: DeiTBranch, images: ImageSet, infer: CRTInferConfig, runtime: Runtime, seeds: SeedFolder,
    strided: StridedFolder,
) -> int:  # fmt: skip
    """Writes what is not there yet of an image set's two folders; the work is shared by all processes.

    Returns:
        How many images were worked on, by all processes together.
    """
    is_done = lambda image_id: seeds.is_done(image_id) and strided.is_done(image_id)  # noqa: E731
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
