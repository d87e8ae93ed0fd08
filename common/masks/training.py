"""The masks that a segmentation network is trained on: pseudo masks of an earlier stage, or true masks."""

from pathlib import Path

import numpy as np
from PIL import Image

from common.data.dataset import ImageSet, read_mask
from common.data.stamp import LABEL_MAPS, MASKS, require_kind
from common.masks.options import require_masks
from common.run.errors import UserError, preview
from common.score.counts import check_mask


class TrainingMasks:
    """The masks of an image set; gives image and mask by index."""

    def __init__(self, images: ImageSet, place: str, num_labels: int, advice: str = "") -> None:
        """Names the files.

        Args:
            place: folder of ``<id>.png``, or a pattern of the files with ``{id}`` in it.
            num_labels: C + 1, background included.
            advice: how such masks are made, for messages.

        Raises:
            UserError: no place is given, it holds files of another kind, or masks are missing; they are named.
        """
        require_masks(place, advice)
        pattern = place if "{id}" in place else str(Path(place) / "{id}.png")
        if "{id}" not in place:
            require_kind(place, (MASKS, LABEL_MAPS), lambda found, stamp: advice)
        self.images = images
        self.num_labels = num_labels
        self.paths = [Path(pattern.replace("{id}", image_id)) for image_id in images.ids]
        missing = [path for path in dict.fromkeys(self.paths) if not path.is_file()]
        if missing:
            total = len(set(self.paths))
            raise UserError(
                f"{len(missing)} of the {total} masks of list {images.list_name!r} are missing: {preview(missing, 3)}. "
                f"{advice}"
            )

    def load(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """RGB image and mask, uint8 (H, W): 0 background, class index + 1, 255 ignored.

        Raises:
            UserError: a file is damaged, the two differ in size, or the mask has values of another data set.
        """
        image = self.images.load_image(index)
        path = self.paths[index]
        mask = read_mask(path)
        if mask.shape != (image.height, image.width):
            raise UserError(
                f"the mask {path} is of {mask.shape[1]}x{mask.shape[0]} pixels, its image of "
                f"{image.width}x{image.height}"
            )
        try:
            check_mask(mask, self.num_labels)
        except UserError as error:
            raise UserError(f"{path}: {error}. Was it made for another data set?") from error
        return image, mask
