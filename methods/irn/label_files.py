"""The label maps that IRN is trained on, as files beside the images."""

from pathlib import Path

import numpy as np
from PIL import Image

from common.data.dataset import ImageSet, read_mask
from common.data.stamp import LABEL_MAPS, MASKS, require_kind
from common.run.errors import UserError, preview

MADE_BY = "Make them with: python methods/irn/make_ir_label.py"


class LabelFiles:
    """The label maps of an image set; gives image and label map by index."""

    def __init__(self, images: ImageSet, folder: Path) -> None:
        """Names the files.

        Raises:
            UserError: some are missing; they are named. Or the folder holds files of another kind.
        """
        require_kind(folder, (LABEL_MAPS, MASKS), lambda found, stamp: MADE_BY)
        self.images = images
        self.files = [folder / f"{image_id}.png" for image_id in images.ids]
        there = set(folder.iterdir()) if folder.is_dir() else set()
        missing = [file for file in dict.fromkeys(self.files) if file not in there]
        if missing:
            raise UserError(
                f"{len(missing)} of the {len(set(self.files))} label maps of list {images.list_name!r} are missing: "
                f"{preview(missing, 3)}. {MADE_BY}"
            )

    def load(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """RGB image and label map, uint8 (H, W): 0 background, class index + 1, 255 ignored.

        Raises:
            UserError: a file is damaged, or the two differ in size.
        """
        image = self.images.load_image(index)
        label_map = read_mask(self.files[index])
        if label_map.shape != (image.height, image.width):
            raise UserError(f"{self.files[index]} is of {label_map.shape}, its image of {(image.height, image.width)}")
        return image, label_map
