"""Whole image lists for a network: batches of one image size, shared by all processes, without finished ones."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common.data.dataset import ImageSet
from common.data.loader import start_worker
from common.data.sizes import usable_size
from common.data.transforms import eval_transform
from common.run.device import Runtime
from common.run.pool import usable_workers
from common.run.progress import ProgressBar

# Turns a decoded image into network input, in the loader's workers: its pixels, or several tensors.
Transform = Callable[[Image.Image], Tensor | list[Tensor]]


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
        height, width = usable_size(images.file(index))
        by_size[width, height].append(index)
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

    The batches are the same for any number of processes and after any restart, and so are their results: a batch is
    left out only when all of its images are done.

    Args:
        is_done: whether an image is already done, by its id.
        title: of the progress bar.
        transform: turns a decoded RGB image into network input; of several tensors each becomes a batch of its own.
    """
    # Shared out first: the other processes may be writing already, and all must cut the same list.
    batches = runtime.processes.shard(size_batches(images, batch_size))
    batches = [batch for batch in batches if not all(is_done(images.ids[index]) for index in batch)]
    workers = usable_workers(min(num_workers, len(batches)))
    loader = DataLoader(
        _Images(images, transform), batch_sampler=batches, num_workers=workers,
        pin_memory=runtime.device.type == "cuda", generator=torch.Generator(), worker_init_fn=start_worker,
    )  # fmt: skip
    with ProgressBar(title, sum(map(len, batches)), active=runtime.processes.is_main) as bar:
        for indices, pixels in loader:
            moved = runtime.to_device(*pixels) if isinstance(pixels, list) else runtime.to_device(pixels)[0]
            yield indices.tolist(), moved
            bar.advance(len(indices))
