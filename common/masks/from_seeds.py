"""Reads a folder of seeds for the stages that refine it.

A stage has several scripts, which write into one run folder: one before the training makes its input, one after it
makes the masks.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from common.data.dataset import ImageSet
from common.data.seeds import FORMATS, Seed, find_seed, read_seed
from common.data.stamp import SEEDS, Kind, Stamp, require_kind, seed_settings
from common.data.thresholds import calibrated, read_thresholds
from common.masks.options import SeedsConfig
from common.run.errors import UserError, preview

NONE: Mapping[int, float] = MappingProxyType({})  # thresholds, where seeds stay as they are


def require_maps(images: ImageSet, folder: Path, made_by: str, *kinds: Kind) -> None:
    """Makes sure that every image has a file of maps in a folder, and that they are of the right kind.

    Args:
        made_by: the command that writes them, for the message.
        kinds: what they may be; seeds, if none is given.

    Raises:
        UserError: some have none; they are named. Or the folder holds files of another kind.
    """
    accepted = kinds or (SEEDS,)

    def advice(found: Kind, stamp: Stamp | None) -> str:
        source = stamp.seeds if stamp else ""
        if SEEDS not in accepted:
            return f"Make them with: {made_by}"
        return f"Name the folder that they were made of: --seeds {source}" if source else f"Seeds are made by {made_by}"

    require_kind(folder, accepted, advice, images.ids, images.sample_classes)
    there = {path.stem for path in folder.iterdir() if path.suffix[1:] in FORMATS} if folder.is_dir() else set()
    missing = [image_id for image_id in dict.fromkeys(images.ids) if image_id not in there]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(set(images.ids))} images of list {images.list_name!r} have no file in "
            f"{folder}: {preview(missing, 3)}. Make them with: {made_by}"
        )


def read_maps(folder: Path, image_id: str, size: tuple[int, int]) -> Seed:
    """An image's file of maps (a seed, or marginals), which must be of its size (H, W).

    Raises:
        UserError: it is missing, damaged, or of another size.
    """
    path = find_seed(folder, image_id)
    maps = read_seed(path)
    shapes = {values.shape for values in maps.values()}
    if shapes - {tuple(size)}:
        raise UserError(f"{path} holds maps of {shapes.pop()}, but the image is of {tuple(size)} pixels (H, W)")
    return maps


def seed_thresholds(config: SeedsConfig, classes: Sequence[str]) -> dict[int, float]:
    """The thresholds that seeds are calibrated by, by class index; none unless the configuration names a file.

    Raises:
        UserError: as `read_thresholds`.
    """
    return read_thresholds(Path(config.thresholds), classes) if config.thresholds else {}


def source_settings(folder: Path, thresholds: Mapping[int, float]) -> dict[str, Any]:
    """As `seed_settings`, with the thresholds that the seeds are calibrated by, if there are any."""
    by_class = {str(key): value for key, value in thresholds.items()}
    return {**seed_settings(folder), **({"calibrated_by": by_class} if by_class else {})}


def read_class_maps(
    folder: Path, image_id: str, size: tuple[int, int], num_classes: int, thresholds: Mapping[int, float] = NONE
) -> Seed:
    """As `read_maps`, of seeds of a data set with ``num_classes`` classes, background not among them.

    Args:
        thresholds: by class index; see `common.data.thresholds.calibrated`.

    Raises:
        UserError: as `read_maps`, or the seed has other classes.
    """
    seed = read_maps(folder, image_id, size)
    if seed and not 0 <= min(seed) <= max(seed) < num_classes:
        raise UserError(f"the seed of {image_id} in {folder} has classes {list(seed)} of {num_classes}")
    return calibrated(seed, thresholds)
