"""The folders that fused seeds and their agreement are written to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.data.dataset import ImageSet
from common.data.outputs import StampedFolder
from common.data.seeds import FORMATS, find_seed
from common.data.stamp import AGREEMENT, SEEDS, seed_settings, stamp_of
from common.run.device import Runtime
from common.run.folder import RunFolder
from methods.fusion.config import FuseSection, Run


@dataclass(frozen=True)
class FusionFolders:
    """The folders of the fused seeds and of the agreement; a seed is written last.

    Attributes:
        seeds: of the seeds.
        agreement: of the agreement.
        format: of the seeds, npy or npz.
        content: plural noun for the files, for messages.
    """

    seeds: StampedFolder
    agreement: StampedFolder
    format: str
    content: str = "seeds"

    def is_done(self, image_id: str) -> bool:
        """Whether the image has its seed and its agreement."""
        agreement = self.agreement.path / f"{image_id}.npz"
        return agreement.is_file() and (self.seeds.path / f"{image_id}.{self.format}").is_file()

    def __str__(self) -> str:
        return str(self.seeds)


def open_fusion_folders(
    run: RunFolder, images: ImageSet, config: FuseSection, runs: Sequence[Run], runtime: Runtime, overwrite: bool
) -> FusionFolders:
    """The folders of a run's fused seeds and agreement; those of images whose seeds changed are made again.

    Raises:
        UserError: one of them holds files of other settings, and ``overwrite`` is not given.
    """
    sources = [{**seed_settings(run.folder), "weight": run.weight, "threshold": run.threshold} for run in runs]
    settings = {"how": config.how, "format": config.format, "runs": sources}

    def inputs(image_id: str) -> list[Path]:
        return [find_seed(run.folder, image_id) for run in runs]

    stamp = stamp_of(SEEDS, "fusion", settings, images, inputs=inputs)
    seeds = StampedFolder(run.seeds, stamp, FORMATS, runtime, overwrite)
    stamp = stamp_of(AGREEMENT, "fusion", {"runs": sources}, images, inputs=inputs)
    agreement = StampedFolder(run.agreement, stamp, ("npz",), runtime, overwrite)
    return FusionFolders(seeds, agreement, config.format)
