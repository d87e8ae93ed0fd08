"""The label masks that are trained on: pseudo masks of any earlier stage, or true ones."""

from pathlib import Path

import numpy as np
from PIL import Image

from common.data.dataset import ImageSet, read_mask
from common.run.errors import UserError, preview
from common.score.counts import check_mask
from methods.deeplab.config import mask_advice, require_masks


class TrainingMasks:
    """Reads an image with its mask, by index in an image set."""

    def __init__(self, images: ImageSet, place: str, num_labels: int) -> None:
        """Checks that every image has a mask.

        Args:
            place: folder of ``<id>.png``, or a pattern of the files with ``{id}`` in it.
            num_labels: background included.

        Raises:
            UserError: no place is given, or masks are missing: how many, which, and how they are made.
        """
        require_masks(place, images.list_name)
        pattern = place if "{id}" in place else str(Path(place) / "{id}.png")
        self.images, self.num_labels = images, num_labels
        self.paths = [Path(pattern.replace("{id}", image_id)) for image_id in images.ids]
        missing = [path for path in dict.fromkeys(self.paths) if not path.is_file()]
        if missing:
            total = len(set(self.paths))
            raise UserError(
                f"{len(missing)} of the {total} masks of list {images.list_name!r} are missing: {preview(missing, 3)}. "
                f"{mask_advice(images.list_name)}"
            )

    def __call__(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """The decoded RGB image and its labels, uint8 (H, W): 0 background, class index + 1, 255 ignored.

        Raises:
            UserError: a file is damaged, the two differ in size, or labels are not the data set's.
        """
        image, path = self.images.load_image(index), self.paths[index]
        labels = read_mask(path)
        if labels.shape != (image.height, image.width):
            raise UserError(
                f"the mask {path} is of {labels.shape[1]}x{labels.shape[0]} pixels, its image of "
                f"{image.width}x{image.height}"
            )
        try:
            check_mask(labels, self.num_labels)
        except UserError as error:
            raise UserError(f"{path}: {error}. Was it made for another data set?") from error
        return image, labels
