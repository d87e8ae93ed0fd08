"""Views of images for training and test of object localisation: squares, whatever the image's aspect."""

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from common.data.cub import CUBImages
from common.data.transforms import square_transform, to_bytes
from methods.crt.wsol_config import WSOLViewConfig


class WSOLViews:
    """Maps a PIL image to its one view: resized to a square, randomly cropped and flipped.

    The view has the pixels, uint8 (3, S, S).
    """

    def __init__(self, config: WSOLViewConfig, side: int) -> None:
        """See the class; ``side`` is S."""
        self._transform = transforms.Compose(
            [
                transforms.Resize((config.resize, config.resize), transforms.InterpolationMode.BILINEAR),
                transforms.RandomCrop(side),
                transforms.RandomHorizontalFlip(),
                to_bytes,
            ]
        )

    def __call__(self, image: Image.Image) -> list[Tensor]:
        """See the class."""
        return [self._transform(image)]


class SquareImages(Dataset):
    """``(index, pixels (3, S, S), size)``: whole images resized to S x S, and their own size (width, height)."""

    def __init__(self, images: CUBImages, side: int) -> None:
        """See the class; ``side`` is S."""
        self.images = images
        self.side = side

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[int, Tensor, Tensor]:
        image = self.images.load_image(index)
        return index, square_transform(image, self.side), torch.tensor(image.size)
