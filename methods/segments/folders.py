"""The folders that segments, voted seeds and their masks are written to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.data.dataset import ImageSet
from common.data.outputs import MaskFolder, StampedFolder
from common.data.seeds import FORMATS
from common.data.segments import write_entries
from common.data.stamp import MASKS, SEEDS, stamp_of
from common.run.device import Runtime
from common.run.folder import RunFolder
from methods.segments.source import VoteSource

Regions = tuple[list[np.ndarray], list[float]]  # bool (H, W) each, and a score each


class LabelMapFolder(StampedFolder):
    """The folder of an image set's label maps, ``<id>.npz``."""

    def file(self, image_id: str) -> Path:
        """Path of an image's label map, which need not exist yet."""
        return self.path / f"{image_id}.npz"

    def is_done(self, image_id: str) -> bool:
        """Whether the image's label map is there."""
        return self.file(image_id).is_file()


class RegionFolder(StampedFolder):
    """The folder of an image set's regions, which may overlap, ``<id>.json``."""

    def file(self, image_id: str) -> Path:
        """Path of an image's regions, which need not exist yet."""
        return self.path / f"{image_id}.json"

    def is_done(self, image_id: str) -> bool:
        """Whether the image's regions are there."""
        return self.file(image_id).is_file()

    def write(self, image_id: str, regions: Regions) -> None:
        """Writes an image's regions."""
        write_entries(self.file(image_id), *regions)


@dataclass(frozen=True)
class VoteFolders:
    """The folders of the seeds after the vote and of their masks; a mask is written last.

    Attributes:
        seeds: of the seeds.
        masks: of the masks.
        format: of the seeds, npy or npz.
        content: plural noun for the files, for messages.
    """

    seeds: StampedFolder
    masks: MaskFolder
    format: str
    content: str = "seeds and masks"

    def is_done(self, image_id: str) -> bool:
        """Whether the image has its seed and its mask."""
        return self.masks.is_done(image_id) and (self.seeds.path / f"{image_id}.{self.format}").is_file()

    def __str__(self) -> str:
        return f"{self.seeds}, {self.masks}"


def open_vote_folders(
    run: RunFolder, images: ImageSet, source: VoteSource, settings: dict[str, Any], fmt: str, runtime: Runtime,
    overwrite: bool,
) -> VoteFolders:  # fmt: skip
    """The folders of a run's voted seeds and masks; those of images whose seed or segments changed are made again.

    Args:
        fmt: of the seeds, npy or npz.

    Raises:
        UserError: one of them holds files of other settings, and ``overwrite`` is not given.
    """
    of_seeds, of_masks = (
        stamp_of(kind, "segments", settings, images, source.seeds, source.files) for kind in (SEEDS, MASKS)
    )
    seeds = StampedFolder(run.seeds, of_seeds, FORMATS, runtime, overwrite)
    masks = MaskFolder(run.masks, of_masks, runtime, overwrite)
    return VoteFolders(seeds, masks, fmt)
