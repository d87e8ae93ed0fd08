"""Images whose predictions can be scored: images with true masks."""

from pathlib import Path
from typing import TypeVar

from common.data.dataset import ImageSet
from common.data.layout import DataConfig
from common.run.errors import UserError, preview
from common.score.options import EvalConfig

Images = TypeVar("Images", bound=ImageSet)


def scored_images(kind: type[Images], data: DataConfig, list_name: str, config: EvalConfig) -> Images:
    """The images of a list that seeds or masks are to be scored on.

    Args:
        kind: `LabelledImages` for seeds, `ImageSet` for masks.

    Raises:
        UserError: as ``kind``; or masks are missing, or the thresholds unusable. A training asks before its first step.
    """
    config.grid()
    images = kind(data, list_name)
    missing = _missing_masks(images)
    if missing:
        raise _masks_needed(images, missing)
    return images


def has_masks(images: ImageSet) -> bool:
    """Whether predictions for the images can be scored.

    Raises:
        UserError: masks of only some of them exist.
    """
    missing = _missing_masks(images)
    if missing and len(missing) < len(images):
        raise _masks_needed(images, missing)
    return not missing


def _missing_masks(images: ImageSet) -> list[Path]:
    return [path for path in map(images.mask_path, images.ids) if not path.is_file()]


def _masks_needed(images: ImageSet, missing: list[Path]) -> UserError:
    return UserError(
        f"{len(missing)} of the {len(images)} masks of list {images.list_name!r} are missing: {preview(missing, 3)}. "
        f"Get them with: {images.layout.provided_by}; or score another list, or none"
    )
