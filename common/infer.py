"""Seeds of a whole image list: sized batches, sharding, restart, asynchronous writing."""

import functools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from common.cam import multi_view_cams
from common.config import Rule, at_least, option
from common.data.dataset import ImageSet
from common.data.loader import start_worker
from common.data.transforms import eval_transform
from common.errors import UserError
from common.files import write_json
from common.runtime import Runtime, usable_workers
from common.seeds import FORMATS, BackgroundWriter, Seed, write_seed
from common.vit import SEED_MAPS


@dataclass
class InferConfig:
    """Seed inference."""

    image_list: str = option("train_aug", "Images to write seeds for.", flag="--val_list")
    eval_list: str = option(
        "train", "Images whose seeds are scored at the end, where there are masks for them; empty: none."
    )
    scales: list[float] = option(
        [1.0], "Image scales whose CAMs are summed.",
        rule=Rule("one or more numbers above 0", lambda scales: bool(scales) and min(scales) > 0),
    )  # fmt: skip
    flip: bool = option(True, "Whether the mirror image's CAMs are added.")
    batch_size: int = option(4, "Images of one size that go through the network together.", rule=at_least(1))
    format: str = option("npy", "Seed files: npy as the papers' tools read it, or the compact npz.", choices=FORMATS)
    crf_alphas: list[int] = option([6, 10, 24], "Background exponents of --crf, one folder each.", flag="--alphas")
    num_workers: int = option(
        4, "Image-loader worker processes; also the processes of --crf.", flag="--num_workers", rule=at_least(0)
    )
    vis_limit: int = option(200, "Most pictures that --vis makes.")


@dataclass
class ClassTokenInferConfig(InferConfig):
    """Seed inference of networks with class tokens."""

    seed_map: str = option(
        "rcams",
        "Which map becomes the seed: rcams (refined by patch affinity), fcams (attention x CAM) or cams.",
        choices=SEED_MAPS,
    )


class _Images(Dataset):
    """``(index, image)`` of an image set, for lists of indices of one size."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return index, eval_transform(self.images.load_image(index))


def size_batches(images: ImageSet, batch_size: int) -> list[list[int]]:
    """Indices in batches of one image size, every image once, largest first (memory runs out at once or never)."""
    by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    first_of = {image_id: index for index, image_id in reversed(list(enumerate(images.ids)))}
    for index in sorted(first_of.values()):
        try:
            with Image.open(images.images[index]) as image:
                by_size[image.size].append(index)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"the image {images.images[index]} cannot be decoded ({error})") from error
    sizes = sorted(by_size, key=lambda size: (-size[0] * size[1], size))
    return [by_size[size][i : i + batch_size] for size in sizes for i in range(0, len(by_size[size]), batch_size)]


def infer_seeds(
    cams_of: Callable[[Tensor], Tensor],
    images: ImageSet,
    config: InferConfig,
    runtime: Runtime,
    is_done: Callable[[str], bool] = lambda image_id: False,
    title: str = "seeds",
) -> Iterator[tuple[int, Seed]]:
    """Yields ``(index, seed)`` for this process's share of an image set.

    The batches are the same for any number of processes and after any restart, so the seeds are, too: a batch is left
    out only when all of its images are done.

    Args:
        cams_of: maps images (b, 3, H, W) to foreground CAMs (b, C, h, w).
        is_done: whether an image needs no seed any more.
    """
    # Shared out first: the other processes may be writing already, and all must cut the same list.
    batches = runtime.processes.shard(size_batches(images, config.batch_size))
    batches = [batch for batch in batches if not all(is_done(images.ids[index]) for index in batch)]
    workers = usable_workers(min(config.num_workers, len(batches)))
    loader = DataLoader(
        _Images(images), batch_sampler=batches, num_workers=workers, pin_memory=runtime.device.type == "cuda",
        generator=torch.Generator(),
        worker_init_fn=start_worker,
    )  # fmt: skip
    with tqdm(
        total=sum(map(len, batches)), desc=title, disable=not runtime.processes.is_main, leave=False, dynamic_ncols=True
    ) as bar:
        for indices, pixels in loader:
            labels = torch.from_numpy(images.labels[indices.numpy()])
            with runtime.autocast():
                cams = multi_view_cams(
                    cams_of, pixels.to(runtime.device, non_blocking=True), labels, config.scales, config.flip
                )
            for index, maps, label in zip(indices.tolist(), cams, labels, strict=True):
                yield index, dict(zip(label.nonzero().flatten().tolist(), maps.float().cpu().numpy(), strict=True))
            bar.update(len(indices))


class SeedFolder:
    """Where one inference writes its seeds; knows which are done, and refuses to mix two inferences in one folder."""

    def __init__(
        self, path: Path, settings: dict, config: InferConfig, runtime: Runtime, overwrite: bool = False
    ) -> None:
        """Opens the folder.

        Args:
            settings: what the seeds depend on (checkpoint, kind of map, scales, ...).

        Raises:
            UserError: it holds seeds of other settings and ``overwrite`` is not given.
        """
        self.path, self.config = path, config
        settings = {
            **settings, "scales": list(config.scales), "flip": config.flip, "format": config.format,
            "batch_size": config.batch_size, "precision": runtime.precision,
        }  # fmt: skip
        stamp = path.parent / f"{path.name}.json"
        if runtime.processes.is_main:
            there = [file for fmt in FORMATS for file in path.glob(f"*.{fmt}")]
            same = stamp.is_file() and json.loads(stamp.read_text()) == settings
            if there and not same and not overwrite:
                raise UserError(
                    f"{path} holds seeds of another checkpoint or other settings (see {stamp}). Start anew with "
                    "--overwrite, or write elsewhere with --dict_dir"
                )
            if overwrite:
                for file in there:
                    file.unlink()
            path.mkdir(parents=True, exist_ok=True)
            write_json(stamp, settings)
        runtime.processes.barrier()

    def is_done(self, image_id: str) -> bool:
        """Whether the image's seed is there."""
        return (self.path / f"{image_id}.{self.config.format}").is_file()

    def write(self, image_id: str, seed: Seed) -> None:
        """Writes one seed."""
        write_seed(self.path, image_id, seed, self.config.format)


def write_seeds(
    cams_of: Callable[[Tensor], Tensor], images: ImageSet, config: InferConfig, runtime: Runtime, seeds: SeedFolder
) -> int:
    """Writes the seeds of an image set that are not there yet.

    Returns:
        How many were written, by all processes together.
    """
    written = 0
    with BackgroundWriter() as writer:
        for index, seed in infer_seeds(cams_of, images, config, runtime, seeds.is_done):
            writer.submit(functools.partial(seeds.write, images.ids[index], seed))
            written += 1
    return sum(runtime.processes.gather_objects(written))
