"""ToCo's regularisation: the dense-CRF energy of the segmentation, filtered on the permutohedral lattice.

Tang et al., "On regularized losses for weakly-supervised CNN segmentation" (ECCV 2018), gated as in ToCo's code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from common.crf.lattice import Lattice, bilateral_features
from common.data.classes import IGNORE_LABEL
from common.tensors import Context, size_of, tensor_on
from methods.toco.config import EnergyConfig

# ImageNet's statistics in units of 255 as the reference rounds them: the lattice's simplices depend on the last bit.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


def energy_loss(logits: Tensor, images: Tensor, targets: Tensor, boxes: Tensor, config: EnergyConfig) -> Tensor:
    """-(weight / B) sum_{b,c,i} P G (W P): low where similar pixels have similar probabilities.

    P are the softmax probabilities inside the image's box, W is the lattice's bilateral filter. The gate G is 1 where
    the target ignores a pixel, elsewhere max(box - max_c P, 0), so that confident pixels count little.

    The gradient with respect to P is the reference's (DenseEnergyLoss), -(2 weight / B) G (W P) box. It is not the
    derivative of the value: it treats G as constant and as a factor of both P, and W as symmetric.

    Args:
        logits: the decoder's, brought to the image's size, (B, C + 1, H, W).
        images: (B, 3, H, W), ImageNet-normalised.
        targets: (B, H, W), 255 is ignored.
        boxes: integers (B, 4): top, bottom, left, right of the image's content in the input; the rest is padding.

    Returns:
        A scalar, at most 0.
    """
    with torch.autocast(logits.device.type, enabled=False):
        probs = small_probabilities(logits, config.scale)
        with torch.no_grad():
            filtered = _gated_filter(probs, images, targets, boxes, config)
        return config.weight * Energy.apply(probs, filtered)


def small_probabilities(logits: Tensor, scale: float) -> Tensor:
    """Softmax probabilities (B, C + 1, h, w) of logits (B, C + 1, H, W) at a fraction of their size."""
    probs = logits.float().softmax(dim=1)
    return F.interpolate(probs, scale_factor=scale, mode="bilinear", align_corners=False)


class Energy(torch.autograd.Function):
    """-(1/B) sum of P times filtered P, with the gradient -(2/B) filtered P."""

    @staticmethod
    def forward(ctx: Context, probs: Tensor, filtered: Tensor) -> Tensor:
        ctx.save_for_backward(filtered)
        return -(probs * filtered).sum() / len(probs)

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor, None]:
        (filtered,) = ctx.saved_tensors
        return gradient * (-2 / len(filtered)) * filtered, None


def _gated_filter(probs: Tensor, images: Tensor, targets: Tensor, boxes: Tensor, config: EnergyConfig) -> Tensor:
    """G (W P), zero outside the box: (B, C + 1, h, w)."""
    mean, std = (tensor_on(values, images.device, torch.float32).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    pixels = _shrink(images.float() * std + mean, config.scale)
    inside = _shrink(box_mask(boxes, *size_of(images))[:, None].to(probs), config.scale)  # B 1 h w
    ignored = _shrink(targets[:, None].to(probs), config.scale) == IGNORE_LABEL
    gate = (inside - probs.amax(1, keepdim=True)).clamp(min=0).masked_fill(ignored, 1)
    filtered = torch.empty_like(probs)
    for index, image in enumerate(pixels):
        features = bilateral_features(image, config.sigma_xy * config.scale, config.sigma_rgb)
        lattice = Lattice(features, waits=images.device.type == "cpu")
        values = (probs[index] * inside[index]).flatten(1).T.contiguous()  # h*w C+1
        filtered[index] = lattice.filter(values).T.view_as(filtered[index])
    return filtered * gate * inside


def _shrink(maps: Tensor, scale: float) -> Tensor:
    return F.interpolate(maps, scale_factor=scale, mode="nearest")


def box_mask(boxes: Tensor, height: int, width: int) -> Tensor:
    """The pixels inside their image's box (top, bottom, left, right; ends excluded): bool (B, H, W)."""
    top, bottom, left, right = boxes.to(torch.int64).T[..., None, None]  # each B 1 1
    rows = torch.arange(height, device=boxes.device)[:, None]
    columns = torch.arange(width, device=boxes.device)
    return (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)
