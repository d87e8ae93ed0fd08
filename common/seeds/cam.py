"""CAMs over flips and scales, and their normalisation."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from common.tensors import size_of

EPSILON = 1e-5


def max_norm(maps: Tensor) -> Tensor:
    """Normalises each map over its pixels to [0, 1).

    A map (..., h, w) becomes relu(r - min r - e) / (max r - min r + e) with r = relu(map) and e = 1e-5. Gradients flow
    through the minimum and the maximum, as in the references.
    """
    rectified = maps.relu()
    low = rectified.amin((-2, -1), keepdim=True)
    high = rectified.amax((-2, -1), keepdim=True)
    return (rectified - low - EPSILON).relu() / (high - low + EPSILON)


@torch.inference_mode()
def multi_view_cams(
    cams_of: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    scales: Sequence[float] = (1.0,),
    flip: bool = True,
) -> list[Tensor]:
    """CAMs of the labelled classes, summed over views and normalised.

    Each view's maps are brought to the image's size (bilinear), flipped back and summed; the sum is normalised once. On
    accelerators image and mirror image are one batch; on CPUs one follows the other, as larger activations leave the
    cache. Classes without a label are dropped before upsampling: a map's value does not depend on the others.

    Args:
        cams_of: maps images (b, 3, H, W) to foreground CAMs (b, C, h, w).
        images: a batch (B, 3, H, W) of one size.
        labels: multi-hot (B, C).

    Returns:
        For each image float32 (n, H, W), its n labelled classes in ascending order.
    """
    size = size_of(images)
    present = [row.nonzero().flatten() for row in labels]
    total = [images.new_zeros((len(classes), *size)) for classes in present]
    for scale in scales:
        view = (
            images if scale == 1.0 else F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
        )
        views = [view, view.flip(-1)] if flip else [view]
        maps = (
            [cams_of(part) for part in views]
            if images.device.type == "cpu"
            else cams_of(torch.cat(views)).split(len(images))
        )
        for index, classes in enumerate(present):
            if len(classes):
                total[index] += _upsample(maps[0][index, classes].float(), size)
                if flip:
                    total[index] += _upsample(maps[1][index, classes].float(), size).flip(-1)
    return [max_norm(maps) for maps in total]


def _upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
