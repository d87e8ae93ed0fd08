"""Masks with a second opinion: pixels whose label is disputed are ignored."""

import numpy as np
from PIL import Image

from common.data.classes import IGNORE_LABEL
from common.masks.training import TrainingMasks


class DisputedMasks:
    """Two folders of masks of the same images; gives image and mask by index."""

    def __init__(self, masks: TrainingMasks, others: TrainingMasks) -> None:
        self.masks = masks
        self.others = others

    def load(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """RGB image and mask, uint8 (H, W); 255 where the two masks have different labels, or one of them 255.

        Raises:
            UserError: as `TrainingMasks.load`.
        """
        image, mask = self.masks.load(index)
        _, other = self.others.load(index)
        return image, np.where(mask == other, mask, IGNORE_LABEL).astype(np.uint8)
