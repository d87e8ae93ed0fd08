"""CRT's seed files: a folder of maps at the images' size, and a folder of strided maps for IRN."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from common.data.dataset import LabelledImages
from common.data.outputs import write_each
from common.data.seeds import Seed, write_seed
from common.data.stamp import SEEDS, STRIDED_SEEDS, stamp_of
from common.data.whole import image_batches
from common.run.device import Runtime
from common.run.script import Setup
from common.seeds.infer import MapsOf, SeedFolder
from methods.crt.cams import crt_cams, large_cams
from methods.crt.config import CRTInferConfig, strided_path
from methods.crt.model import DeiTBranch


class StridedFolder(SeedFolder):
    """The folder of the maps for IRN, which are written as small as they are."""

    def write(self, image_id: str, seed: Seed) -> None:
        """Writes one image's maps at the size they have."""
        write_seed(self.path, image_id, seed, self.format, stride=1)


@dataclass(frozen=True)
class CAMFolders:
    """Both folders; an image's content is a pair of seeds, at the image's size and for IRN."""

    seeds: SeedFolder
    strided: StridedFolder
    content: str = "seeds"

    def is_done(self, image_id: str) -> bool:
        """Whether the image has both files."""
        return self.seeds.is_done(image_id) and self.strided.is_done(image_id)

    def write(self, image_id: str, pair: tuple[Seed, Seed]) -> None:
        """Writes both files of an image."""
        seed, strided = pair
        self.seeds.write(image_id, seed)
        self.strided.write(image_id, strided)

    def __str__(self) -> str:
        return f"{self.seeds}, {self.strided}"


def write_folders(
    setup: Setup, model: DeiTBranch, images: LabelledImages, weights: dict[str, Any], maps_of: MapsOf
) -> Path:
    """Writes both folders of an image set; returns the folder of the seeds at the images' size.

    Args:
        weights: identity of the weights, for the folders' settings.
        maps_of: not used: `crt_cams` gives both sizes at once.
    """
    infer, runtime = setup.config.infer, setup.runtime
    path = setup.run.path / setup.args.dict_dir
    stamp, strided_stamp = (stamp_of(kind, setup.method, weights, images) for kind in (SEEDS, STRIDED_SEEDS))
    seeds = SeedFolder(path, stamp, infer, runtime, setup.args.overwrite)
    strided = StridedFolder(strided_path(path), strided_stamp, infer, runtime, setup.args.overwrite)
    folders = CAMFolders(seeds, strided)
    write_each(images, folders, seed_pairs(model, images, infer, runtime, folders.is_done), setup.processes)
    return seeds.path


def seed_pairs(
    model: DeiTBranch, images: LabelledImages, infer: CRTInferConfig, runtime: Runtime, is_done: Callable[[str], bool]
) -> Iterator[tuple[int, tuple[Seed, Seed]]]:
    """Yields ``(index, (seed, strided seed))`` for this process's share of an image set."""
    batches = image_batches(
        images, infer.batch_size, infer.num_workers, runtime, is_done, "seeds", infer.transform(), largest=infer.tile
    )
    for indices, views in batches:
        labels = torch.from_numpy(images.labels[indices])
        with runtime.autocast():
            if isinstance(views, Image.Image):
                found = large_cams(model, views, labels, infer, runtime)
            else:
                found = crt_cams(model, views, labels, infer)
        for index, cams, label in zip(indices, found, labels, strict=True):
            keys = label.nonzero().flatten().tolist()
            seed, strided = (dict(zip(keys, maps.cpu().numpy(), strict=True)) for maps in (cams.high_res, cams.strided))
            yield index, (seed, strided)
