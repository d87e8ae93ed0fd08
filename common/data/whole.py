"""Whole image lists for a network: batches of one image size, shared by all processes, without finished ones."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from common.data.images import ImageFile
from common.data.loader import start_worker
from common.data.sizes import usable_size
from common.data.transforms import eval_transform
from common.run.device import Runtime
from common.run.errors import UserError
from common.run.pool import usable_workers
from common.run.progress import ProgressBar

# Turns a decoded image into network input, in the loader's workers: its pixels, or several tensors.
Transform = Callable[[Image.Image], Tensor | list[Tensor]]
Failures = dict[int, str]  # messages about images that cannot be read, by their indices


class ImageFiles(Protocol):
    """Images with ids, such as a `common.data.dataset.ImageSet`."""

    @property
    def ids(self) -> Sequence[str]:
        """Image ids."""

    def unique(self) -> list[int]:
        """Indices of the images, each once."""

    def file(self, index: int) -> ImageFile:
        """The image's file, and how it is read."""

    def load_image(self, index: int) -> Image.Image:
        """The image as RGB, decoded."""


class _Images(Dataset):
    """``(index, input, message)`` of an image set, for lists of indices of one size.

    The message is about a damaged image, which has no input; without ``is_tolerant`` it is raised. An image whose
    longer side is above ``largest`` (0: none) is its own input.
    """

    def __init__(self, images: ImageFiles, transform: Transform, is_tolerant: bool, largest: int) -> None:
        self.images, self.transform, self.is_tolerant, self.largest = images, transform, is_tolerant, largest

    def __getitem__(self, index: int) -> tuple[int, Tensor | list[Tensor] | Image.Image | None, str]:
        try:
            image = self.images.load_image(index)
            return index, image if _is_large(image.size, self.largest) else self.transform(image), ""
        except UserError as error:
            if not self.is_tolerant:
                raise
            return index, None, str(error)


def _joined(items: list[tuple[int, Any, str]]) -> tuple[list[int], Any, Failures]:
    """A batch of the images that could be read, and the messages about the others."""
    there = [(index, pixels) for index, pixels, _ in items if pixels is not None]
    failures = {index: message for index, _, message in items if message}
    indices, pixels = [index for index, _ in there], [pixels for _, pixels in there]
    is_large = bool(pixels) and isinstance(pixels[0], Image.Image)
    return indices, pixels[0] if is_large else default_collate(pixels) if pixels else None, failures


def _is_large(size: tuple[int, int], largest: int) -> bool:
    return 0 < largest < max(size)


def size_batches(images: ImageFiles, batch_size: int, largest: int = 0) -> list[list[int]]:
    """Indices in batches of one image size, every image once, largest first (memory runs out at once or never).

    Args:
        largest: images with a longer side are batches of one; 0: none.
    """
    by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index in images.unique():
        height, width = usable_size(images.file(index))
        by_size[width, height].append(index)
    sizes = sorted(by_size, key=lambda size: (-size[0] * size[1], size))
    steps = {size: 1 if _is_large(size, largest) else batch_size for size in sizes}
    return [by_size[size][i : i + step] for size, step in steps.items() for i in range(0, len(by_size[size]), step)]


def image_batches(
    images: ImageFiles,
    batch_size: int,
    num_workers: int,
    runtime: Runtime,
    is_done: Callable[[str], bool],
    title: str,
    transform: Transform = eval_transform,
    failures: Failures | None = None,
    largest: int = 0,
) -> Iterator[tuple[list[int], Any]]:
    """Yields ``(indices, pixels (b, 3, H, W) on the device)`` for this process's share of an image set.

    An image whose longer side is above ``largest`` comes by itself, as a decoded image in place of the pixels.

    The batches are the same for any number of processes and after any restart, and so are their results: a batch is
    left out only when all of its images are done.

    Args:
        is_done: whether an image is already done, by its id.
        title: of the progress bar.
        transform: turns a decoded RGB image into network input; of several tensors each becomes a batch of its own.
        largest: 0: no image is too large for the network.
        failures: takes the messages about images that cannot be decoded, which are left out; None: the first is raised.

    Raises:
        UserError: an image cannot be read, or is too small; with ``failures`` an image's header alone.
    """
    # Shared out first: the other processes may be writing already, and all must cut the same list.
    batches = runtime.processes.shard(size_batches(images, batch_size, largest))
    batches = [batch for batch in batches if not all(is_done(images.ids[index]) for index in batch)]
    workers = usable_workers(min(num_workers, len(batches)))
    loader = DataLoader(
        _Images(images, transform, failures is not None, largest), batch_sampler=batches, num_workers=workers,
        collate_fn=_joined, pin_memory=runtime.device.type == "cuda", generator=torch.Generator(),
        worker_init_fn=start_worker,
    )  # fmt: skip
    with ProgressBar(title, sum(map(len, batches)), active=runtime.processes.is_main) as bar:
        for indices, pixels, damaged in loader:
            if failures is not None:
                failures |= damaged
            if indices:
                yield indices, on_device(pixels, runtime)
            bar.advance(len(indices) + len(damaged))


def on_device(inputs: Any, runtime: Runtime) -> Any:
    """Network input, a tensor or several, on the device; a decoded image as it is."""
    if isinstance(inputs, Image.Image):
        return inputs
    return runtime.to_device(*inputs) if isinstance(inputs, list) else runtime.to_device(inputs)[0]


def single(inputs: Tensor | list[Tensor], runtime: Runtime) -> Any:
    """The input of one image as a batch on the device."""
    return on_device([part[None] for part in inputs] if isinstance(inputs, list) else inputs[None], runtime)
