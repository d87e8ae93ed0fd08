"""The whole image as input of a network, ImageNet-normalised."""

import numpy as np
import torch
from PIL import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MEAN = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
STD = torch.tensor(IMAGENET_STD).view(3, 1, 1)


def eval_transform(image: Image.Image) -> torch.Tensor:
    """The whole image, ImageNet-normalised: float32 (3, H, W)."""
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))  # H W 3
    return pixels.permute(2, 0, 1).float().div_(255).sub_(MEAN).div_(STD)


def square_transform(image: Image.Image, size: int) -> torch.Tensor:
    """The whole image resized to size x size, its aspect ratio ignored (bilinear, antialiased), ImageNet-normalised."""
    return eval_transform(image.resize((size, size), Image.Resampling.BILINEAR))
