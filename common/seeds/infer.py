"""Seeds of a whole image list, and the folder that they are written to."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.data.dataset import LabelledImages
from common.data.outputs import StampedFolder
from common.data.seeds import FORMATS, Seed, write_seed
from common.data.stamp import Stamp
from common.data.whole import Failures, ImageFiles, image_batches, single
from common.nets.vit import ClassMaps
from common.run.device import Runtime
from common.run.files import has_content
from common.seeds.cam import Evidence, Labels, SeedMaker, SeedMaps, multi_view, tiled_evidence
from common.seeds.options import InferConfig

# Maps network input on the device, as `InferConfig.transform` makes it (mostly images (b, 3, H, W)), and labels to
# seeds; a `SeedMaker`, or a method's own function.
MapsOf = Callable[[Any, Labels], SeedMaps]


def view_maps(network: Callable[[Tensor], ClassMaps], config: InferConfig) -> SeedMaker:
    """Seeds by `multi_view` over the flips and scales of a configuration."""
    return multi_view(network, config.scales, config.flip)


@dataclass(frozen=True)
class FoundSeed:
    """An image's seed.

    Attributes:
        index: of the image.
        seed: {class index: (H, W)}.
        logits: class logits, float32 (C,); None from a method that gives none.
    """

    index: int
    seed: Seed
    logits: np.ndarray | None


def find_seeds(
    maps_of: MapsOf,
    images: ImageFiles,
    labels_of: Callable[[list[int]], Labels],
    config: InferConfig,
    runtime: Runtime,
    is_done: Callable[[str], bool] = lambda image_id: False,
    title: str = "seeds",
    failures: Failures | None = None,
) -> Iterator[FoundSeed]:
    """Yields the seeds of this process's share of an image set; see `image_batches`.

    Args:
        labels_of: gives the labels of images, by their indices.
    """
    batches = image_batches(
        images, config.batch_size, config.num_workers, runtime, is_done, title, config.transform(), failures,
        config.tile,
    )  # fmt: skip
    for indices, inputs in batches:
        with runtime.autocast():
            if isinstance(inputs, Image.Image):
                assert isinstance(maps_of, SeedMaker), "ToCo's configuration has no tiles"
                found = maps_of.seeds(large_evidence(maps_of.evidence, inputs, config, runtime), labels_of(indices))
            else:
                found = maps_of(inputs, labels_of(indices))
        logits = [None] * len(indices) if found.logits is None else found.logits.float().cpu().numpy()
        for index, cams, label, own in zip(indices, found.maps, found.labels, logits, strict=True):
            keys = label.nonzero().flatten().tolist()
            yield FoundSeed(index, dict(zip(keys, cams.float().cpu().numpy(), strict=True)), own)


def large_evidence(
    evidence_of: Callable[[Any], Evidence], image: Image.Image, config: InferConfig, runtime: Runtime
) -> Evidence:
    """The evidence of an image that is cut into the tiles of a configuration; see `tiled_evidence`."""
    transform = config.transform()
    return tiled_evidence(
        evidence_of, image, lambda part: single(transform(part), runtime), config.tile, config.overlap
    )


def infer_seeds(
    maps_of: MapsOf,
    images: LabelledImages,
    config: InferConfig,
    runtime: Runtime,
    is_done: Callable[[str], bool] = lambda image_id: False,
    title: str = "seeds",
) -> Iterator[tuple[int, Seed]]:
    """Yields ``(index, seed)`` by the labels of an image set; see `find_seeds`."""
    for found in find_seeds(maps_of, images, known_labels(images), config, runtime, is_done, title):
        yield found.index, found.seed


def known_labels(images: LabelledImages) -> Callable[[list[int]], Tensor]:
    """Gives the labels (b, C) of images of a set, by their indices."""
    return lambda indices: torch.from_numpy(images.labels[indices])


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
        return has_content(self.path / f"{image_id}.{self.format}")

    def write(self, image_id: str, seed: Seed) -> None:
        """Writes one seed."""
        write_seed(self.path, image_id, seed, self.format)
