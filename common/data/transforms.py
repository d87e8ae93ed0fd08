"""Images as input of a network: bytes, and ImageNet-normalised."""

import numpy as np
import torch
from PIL import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MEAN = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
STD = torch.tensor(IMAGENET_STD).view(3, 1, 1)


def to_bytes(image: Image.Image) -> torch.Tensor:
    """The pixels of an image: uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """ImageNet-normalised pixels, float32 (..., 3, H, W), on their device.

    Args:
        pixels: (..., 3, H, W), from 0 to 255; or (..., 4, H, W), where the result is 0 at a fourth value of 0.
    """
    mean, std = MEAN.to(pixels.device, non_blocking=True), STD.to(pixels.device, non_blocking=True)
    most = torch.full((), 255.0, device=pixels.device)  # a tensor, as CUDA multiplies by the inverse of a number
    result = pixels[..., :3, :, :].float().div_(most).sub_(mean).div_(std)
    return result.masked_fill_(pixels[..., 3:, :, :] == 0, 0) if pixels.shape[-3] == 4 else result


def normalised_views(views: list[torch.Tensor], dims: int) -> list[torch.Tensor]:
    """Views with pixels of bytes normalised; other tensors, such as masks and boxes, as they are.

    Args:
        dims: dimensions of a view with pixels: 3, or 4 of a batch of them.
    """
    return [
        normalised(view) if view.dtype == torch.uint8 and view.dim() == dims and view.shape[-3] in (3, 4) else view
        for view in views
    ]


def eval_transform(image: Image.Image) -> torch.Tensor:
    """The whole image, ImageNet-normalised: float32 (3, H, W)."""
    return normalised(to_bytes(image))


def square_transform(image: Image.Image, size: int) -> torch.Tensor:
    """The whole image resized to size x size, its aspect ratio ignored (bilinear, antialiased), ImageNet-normalised."""
    return eval_transform(image.resize((size, size), Image.Resampling.BILINEAR))
