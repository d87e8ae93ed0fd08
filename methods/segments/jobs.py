"""The vote of one image, to files: a job for `common.run.pool.WorkerPool`, whose processes import this module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from common.data.agreement import read_agreement
from common.data.images import ImageFile
from common.data.masks import write_mask
from common.data.seed_labels import seed_labels
from common.data.seeds import Seed, write_seed
from common.data.segments import Entry, Segments, read_segments
from common.masks.from_seeds import read_class_maps
from methods.segments.config import VoteSection
from methods.segments.voting import ignored, segment_means, undecided, vote


@dataclass(frozen=True)
class Inputs:
    """Everything that one image's vote needs.

    Attributes:
        image_id: the image.
        image: its file, of which only the size is read.
        seeds: folder of the seeds.
        segments: its segments for `common.data.segments.read_segments`; None: there are none.
        num_classes: without background.
        calibration: thresholds of classes, by which the seed is calibrated.
    """

    image_id: str
    image: ImageFile
    seeds: Path
    segments: Path | Sequence[Entry] | None
    num_classes: int
    calibration: Mapping[int, float] = field(default_factory=dict)

    def read(self) -> "Loaded":
        """Opens all files.

        Raises:
            UserError: one is missing, damaged, of another size, or has classes that the data set does not have.
        """
        size = self.image.size()
        seed = read_class_maps(self.seeds, self.image_id, size, self.num_classes, self.calibration)
        if self.segments is None:
            return Loaded(size, seed, None)
        return Loaded(size, seed, read_segments(self.segments, size, f"the regions of {self.image_id}"))


class Loaded(NamedTuple):
    """Size (H, W), seed and segments of an image."""

    size: tuple[int, int]
    seed: Seed
    segments: Segments | None

    def voted(self, config: VoteSection) -> Seed:
        """The seed after the vote; without segments as it is."""
        if self.segments is None:
            return self.seed
        return vote(self.seed, self.segments, config.rule, config.before, config.min_cover)


def write_vote(
    inputs: Inputs, seeds: Path, mask_file: Path, config: VoteSection, thresholds: Mapping[int, float]
) -> None:
    """Writes an image's seed after the vote, then its mask.

    Args:
        seeds: folder of the new seeds.
        thresholds: of single classes; the others have that of the configuration.
    """
    image = inputs.read()
    voted = image.voted(config)
    mask = seed_labels(voted, config.threshold, image.size, thresholds)
    if image.segments is not None and config.ignore_undecided:
        mask = ignored(mask, undecided(image.seed, image.segments, config.before))
    if config.min_agreement > 0:
        agreement = read_agreement(Path(config.agreement), inputs.image_id, image.size)
        if image.segments is not None:
            agreement = segment_means(agreement, image.segments)
        mask = ignored(mask, agreement < config.min_agreement)
    write_seed(seeds, inputs.image_id, voted, config.format)
    write_mask(mask_file, mask)
