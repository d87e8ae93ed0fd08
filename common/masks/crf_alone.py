"""Pseudo masks by a dense CRF of the seeds alone: configuration, and the job of one image."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.crf.dense import CRFConfig, seed_crf
from common.data.dataset import DataConfig, read_image
from common.data.masks import write_mask
from common.masks.from_seeds import SeedsConfig, read_maps
from common.run.config import Rule, option, section
from common.run.device import RuntimeConfig
from common.run.errors import UserError


@dataclass
class SeedCRFConfig(CRFConfig):
    """Dense CRF of seeds against a background of (1 - max over classes)^alpha."""

    alpha: float = option(
        6.0, "Background exponent: the larger, the less background.", flag="--alpha",
        rule=Rule("above 0", lambda value: value > 0),
    )  # fmt: skip

    def settings(self) -> dict[str, object]:
        """The settings that the masks depend on: all but backend and device, whose labels are equal."""
        return {key: value for key, value in vars(self).items() if key not in ("backend", "device")}


@dataclass
class CRFMaskLists:
    """Image lists of the masks to make and to score."""

    image_list: str = option("train_aug", "Images to write masks for.", flag="--infer_list")
    eval_list: str = option(
        "train", "Images whose masks are scored at the end, where there are true ones for them; empty: none."
    )


@dataclass
class CRFMasksConfig:
    """All sections of masks by CRF alone."""

    data: DataConfig = section(DataConfig)
    seeds: SeedsConfig = section(SeedsConfig)
    crf: SeedCRFConfig = section(SeedCRFConfig)
    infer: CRFMaskLists = section(CRFMaskLists)
    runtime: RuntimeConfig = section(RuntimeConfig)


def write_crf_mask(
    image_path: Path, image_id: str, seeds: Path, file: Path, config: SeedCRFConfig, num_classes: int
) -> None:
    """Writes an image's mask: the most probable label after the CRF, the lowest of equal ones.

    Raises:
        UserError: the seed is missing, damaged, not of the image's size, or of other classes.
    """
    image = np.array(read_image(image_path))
    seed = read_maps(seeds, image_id, image.shape[:2])
    if seed and not 0 <= min(seed) <= max(seed) < num_classes:
        raise UserError(f"the seed of {image_id} in {seeds} has classes {list(seed)} of {num_classes}")
    marginals = seed_crf(image, seed, config.alpha, config)
    labels = np.array(list(marginals), dtype=np.uint8)  # n
    write_mask(file, labels[np.stack(list(marginals.values())).argmax(axis=0)])  # n H W -> H W
