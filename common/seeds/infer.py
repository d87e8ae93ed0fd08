"""Seeds of a whole image list, and the folder that they are written to."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.data.dataset import LabelledImages
from common.data.outputs import StampedFolder
from common.data.seeds import FORMATS, Seed, write_seed
from common.data.stamp import Stamp
from common.data.whole import image_batches
from common.run.device import Runtime
from common.seeds.cam import multi_view_cams
from common.seeds.options import InferConfig

# Maps network input on the device, as `InferConfig.transform` makes it (mostly images (b, 3, H, W)), and multi-hot
# labels (b, C) on the CPU to one (n, H, W) per image: its n labelled classes in ascending order, values in [0, 1].
MapsOf = Callable[[Any, Tensor], list[Tensor]]


def view_maps(cams_of: Callable[[Tensor], Tensor], config: InferConfig) -> MapsOf:
    """Seeds by `multi_view_cams` over the flips and scales of a configuration.

    Args:
        cams_of: maps images (b, 3, H, W) to foreground CAMs (b, C, h, w).
    """
    return functools.partial(multi_view_cams, cams_of, scales=config.scales, flip=config.flip)


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
    """The folder to which one inference writes its seeds; knows which are done."""

    def __init__(
        self, path: Path, stamp: Stamp, config: InferConfig, runtime: Runtime, overwrite: bool = False
    ) -> None:
        """Opens the folder.

        Args:
            stamp: of the checkpoint; the configuration adds its own settings.

        Raises:
            UserError: as `StampedFolder`.
        """
        self.format = config.format
        settings = {**stamp.settings, **config.settings(), "precision": runtime.precision}
        super().__init__(path, replace(stamp, settings=settings), FORMATS, runtime, overwrite, "--dict_dir")

    def is_done(self, image_id: str) -> bool:
        """Whether the image's seed is there."""
        return (self.path / f"{image_id}.{self.format}").is_file()

    def write(self, image_id: str, seed: Seed) -> None:
        """Writes one seed."""
        write_seed(self.path, image_id, seed, self.format)
