"""Everything that the votes of a data set are made of: seeds, segments, agreement."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.data.dataset import ImageSet, class_names
from common.data.images import ImageFile
from common.data.segments import SegmentFiles
from common.data.stamp import AGREEMENT, SEGMENTS, STAMP_FILE, read_stamp, require_kind, stamp_of
from common.masks.from_seeds import seed_thresholds, source_settings
from common.run.errors import UserError, preview
from methods.segments.config import SegmentsConfig
from methods.segments.jobs import Inputs


class VoteSource:
    """Seeds and segments of a configuration."""

    def __init__(self, config: SegmentsConfig, own_segments: Path, num_classes: int) -> None:
        """Opens them.

        Args:
            own_segments: folder of the segments where the configuration names none.
            num_classes: without background.

        Raises:
            UserError: folders are missing, or hold files of another kind.
        """
        self.config, self.num_classes = config, num_classes
        self.seeds = config.seeds.path()
        self.calibration = seed_thresholds(config.seeds, class_names(config.data))
        self.path = config.segments.path(own_segments)
        self.segments = SegmentFiles(self.path, config.data.dataset) if self.path else None
        if self.path and self.path.is_dir():
            require_kind(self.path, SEGMENTS, lambda found, stamp: "python scripts/make_segments.py makes them")
        if config.vote.agreement:
            require_kind(
                config.vote.agreement, AGREEMENT, lambda found, stamp: "python scripts/fuse_seeds.py writes it"
            )

    def require(self, images: ImageSet) -> None:
        """Makes sure that every image has segments and agreement, where they are asked for.

        Raises:
            UserError: some have none; they are named.
        """
        if self.segments:
            self.segments.require(images.ids, images.list_name)
        self._require_current(images)
        folder = Path(self.config.vote.agreement)
        missing = [key for key in dict.fromkeys(images.ids) if not (folder / f"{key}.npz").is_file()]
        if self.config.vote.agreement and missing:
            raise UserError(
                f"{len(missing)} images of list {images.list_name!r} have no agreement in {folder}: "
                f"{preview(missing, 3)}"
            )

    def _require_current(self, images: ImageSet) -> None:
        """Makes sure that segments with a stamp are of the images as they are now.

        Raises:
            UserError: image files have changed since; they are named.
        """
        stamp = read_stamp(self.path) if self.path and self.path.is_dir() else None
        outdated = stamp_of(SEGMENTS, "", {}, images).outdated(stamp) if stamp else []
        if outdated:
            raise UserError(
                f"the segments of {len(outdated)} images in {self.path} were made of other image files: "
                f"{preview(outdated, 3)}. Make them again with: python scripts/make_segments.py; if the images are "
                f"only another copy, delete its {STAMP_FILE}"
            )

    def files(self, image_id: str) -> list[Path]:
        """The files of segments and agreement that an image's vote depends on."""
        found = self.segments.find(image_id) if self.segments else None
        own = [found if isinstance(found, Path) else self.path] if self.path else []
        agreement = [Path(self.config.vote.agreement) / f"{image_id}.npz"] if self.config.vote.agreement else []
        return [path for path in (*own, *agreement) if path]

    def inputs(self, image_id: str, image: ImageFile) -> Inputs:
        """What one image's vote needs."""
        segments = self.segments.find(image_id) if self.segments else None
        return Inputs(image_id, image, self.seeds, segments, self.num_classes, self.calibration)

    def settings(self, thresholds: Mapping[int, float]) -> dict[str, Any]:
        """All that seeds and masks depend on, for their stamps."""
        stamp = read_stamp(self.path) if self.path and self.path.is_dir() else None
        vote = {key: value for key, value in vars(self.config.vote).items() if key not in ("tune_on", "thresholds")}
        return {
            **source_settings(self.seeds, self.calibration), "segments": str(self.path or ""),
            "segments_made_by": stamp.settings if stamp else {}, **vote,
            "by_class": {str(key): value for key, value in thresholds.items()},
        }  # fmt: skip
