"""Seeds of a whole image list: sized batches, sharding, restart."""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from common.data.dataset import ImageSet, LabelledImages
from common.data.loader import start_worker
from common.data.outputs import StampedFolder
from common.data.seeds import FORMATS, Seed, write_seed
from common.data.transforms import eval_transform
from common.nets.vit import SEED_MAPS
from common.run.config import Rule, at_least, option
from common.run.device import Runtime, usable_workers
from common.run.errors import UserError
from common.seeds.cam import multi_view_cams

# What an inference makes of a decoded image, in the loader's workers: its pixels, or several tensors.
Transform = Callable[[Image.Image], Tensor | list[Tensor]]
# Maps images (b, 3, H, W), or what else `InferConfig.transform` makes of them, on the device, and their multi-hot
# labels (b, C), on the CPU, to one (n, H, W) for each image: its n labelled classes in ascending order, values in
# [0, 1].
MapsOf = Callable[[Any, Tensor], list[Tensor]]

SCALES = Rule("one or more numbers above 0", lambda scales: bool(scales) and min(scales) > 0)


@dataclass
class InferConfig:
    """Seed inference."""

    image_list: str = option("train_aug", "Images to write seeds for.", flag="--val_list")
    eval_list: str = option(
        "train", "Images whose seeds are scored at the end, where there are masks for them; empty: none."
    )
    scales: list[float] = option([1.0], "Image scales whose CAMs are summed.", rule=SCALES)
    flip: bool = option(True, "Whether the mirror image's CAMs are added.")
    batch_size: int = option(4, "Images of one size that go through the network together.", rule=at_least(1))
    format: str = option("npy", "Seed files: npy as the papers' tools read it, or the compact npz.", choices=FORMATS)
    crf_alphas: list[int] = option([6, 10, 24], "Background exponents of --crf, one folder each.", flag="--alphas")
    num_workers: int = option(
        4, "Image-loader worker processes; also the processes of --crf.", flag="--num_workers", rule=at_least(0)
    )
    vis_limit: int = option(200, "Most pictures that --vis makes.")

    def settings(self) -> dict[str, Any]:
        """What the seeds of a network depend on; recorded with them, so that two inferences are not mixed."""
        return {"scales": list(self.scales), "flip": self.flip, "format": self.format, "batch_size": self.batch_size}

    def transform(self) -> Transform:
        """What a method's `MapsOf` takes of an image: here the normalised pixels."""
        return eval_transform


@dataclass
class ClassTokenInferConfig(InferConfig):
    """Seed inference of networks with class tokens."""

    seed_map: str = option(
        "rcams",
        "Which map becomes the seed: rcams (refined by patch affinity), fcams (attention x CAM) or cams.",
        choices=SEED_MAPS,
    )

    def settings(self) -> dict[str, Any]:
        """As `InferConfig.settings`."""
        return {**super().settings(), "seed_map": self.seed_map}


def view_maps(cams_of: Callable[[Tensor], Tensor], config: InferConfig) -> MapsOf:
    """Seeds by `multi_view_cams` over the flips and scales of a configuration.

    Args:
        cams_of: maps images (b, 3, H, W) to foreground CAMs (b, C, h, w).
    """
    return functools.partial(multi_view_cams, cams_of, scales=config.scales, flip=config.flip)


class _Images(Dataset):
    """``(index, image)`` of an image set, for lists of indices of one size."""

    def __init__(self, images: ImageSet, transform: Transform) -> None:
        self.images, self.transform = images, transform

    def __getitem__(self, index: int) -> tuple[int, Tensor | list[Tensor]]:
        return index, self.transform(self.images.load_image(index))


def size_batches(images: ImageSet, batch_size: int) -> list[list[int]]:
    """Indices in batches of one image size, every image once, largest first (memory runs out at once or never)."""
    by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index in images.unique():
        try:
            with Image.open(images.images[index]) as image:
                by_size[image.size].append(index)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"the image {images.images[index]} cannot be decoded ({error})") from error
    sizes = sorted(by_size, key=lambda size: (-size[0] * size[1], size))
    return [by_size[size][i : i + batch_size] for size in sizes for i in range(0, len(by_size[size]), batch_size)]


def image_batches(
    images: ImageSet,
    batch_size: int,
    num_workers: int,
    runtime: Runtime,
    is_done: Callable[[str], bool],
    title: str,
    transform: Transform = eval_transform,
) -> Iterator[tuple[list[int], Any]]:
    """Yields ``(indices, pixels (b, 3, H, W) on the device)`` for this process's share of an image set.

    The batches are the same for any number of processes and after any restart, so that what is made of them is, too: a
    batch is left out only when all of its images are done.

    Args:
        is_done: whether an image needs no work any more, by its id.
        title: of the progress bar.
        transform: maps a decoded RGB image to what the network takes; several tensors of an image become as many
            batches.
    """
    # Shared out first: the other processes may be writing already, and all must cut the same list.
    batches = runtime.processes.shard(size_batches(images, batch_size))
    batches = [batch for batch in batches if not all(is_done(images.ids[index]) for index in batch)]
    workers = usable_workers(min(num_workers, len(batches)))
    loader = DataLoader(
        _Images(images, transform), batch_sampler=batches, num_workers=workers,
        pin_memory=runtime.device.type == "cuda", generator=torch.Generator(), worker_init_fn=start_worker,
    )  # fmt: skip
    with tqdm(
        total=sum(map(len, batches)), desc=title, disable=not runtime.processes.is_main, leave=False, dynamic_ncols=True
    ) as bar:
        for indices, pixels in loader:
            moved = runtime.to_device(*pixels) if isinstance(pixels, list) else runtime.to_device(pixels)[0]
            yield indices.tolist(), moved
            bar.update(len(indices))


def infer_seeds(
    maps_of: MapsOf,
    images: LabelledImages,
    config: InferConfig,
    runtime: Runtime,
    is_done: Callable[[str], bool] = lambda image_id: False,
    title: str = "seeds",
) -> Iterator[tuple[int, Seed]]:
    """Yields ``(index, seed)`` for this process's share of an image set; see `image_batches`."""
    batches = image_batches(images, config.batch_size, config.num_workers, runtime, is_done, title, config.transform())
    for indices, pixels in batches:
        labels = torch.from_numpy(images.labels[indices])
        with runtime.autocast():
            maps = maps_of(pixels, labels)
        for index, cams, label in zip(indices, maps, labels, strict=True):
            yield index, dict(zip(label.nonzero().flatten().tolist(), cams.float().cpu().numpy(), strict=True))


class SeedFolder(StampedFolder):
    """Where one inference writes its seeds; knows which are done."""

    def __init__(
        self, path: Path, settings: dict[str, Any], config: InferConfig, runtime: Runtime, overwrite: bool = False
    ) -> None:
        """Opens the folder.

        Args:
            settings: what the seeds depend on besides the configuration: the checkpoint.

        Raises:
            UserError: as `StampedFolder`.
        """
        self.format = config.format
        settings = {**settings, **config.settings(), "precision": runtime.precision}
        super().__init__(path, settings, FORMATS, runtime, overwrite, "seeds", "--dict_dir")

    def is_done(self, image_id: str) -> bool:
        """Whether the image's seed is there."""
        return (self.path / f"{image_id}.{self.format}").is_file()

    def write(self, image_id: str, seed: Seed) -> None:
        """Writes one seed."""
        write_seed(self.path, image_id, seed, self.format)
