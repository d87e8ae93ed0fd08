"""ToCo's products of CAMs: labels for patches and pixels, and regions for local crops.

Symbols: B batch, K foreground classes, h*w patches. CAMs are normalised to [0, 1]; labels are 0 for background, k + 1
for class k, 255 for "ignore". Boxes are (top, bottom, left, right) in pixels of the training image: the part that is
not padding. All is without gradient. (Reference: utils/camutils.py.)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from common.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from common.tensors import size_of
from methods.toco.config import LabelConfig
from methods.toco.par import PAR

IGNORE = 255
MEAN_255 = torch.tensor([255 * value for value in IMAGENET_MEAN]).view(3, 1, 1)
STD_255 = torch.tensor([255 * value for value in IMAGENET_STD]).view(3, 1, 1)


def valid_cams(cams: Tensor, labels: Tensor) -> Tensor:
    """CAMs (B, K, H, W), zero for classes that are not in the labels (B, K)."""
    return cams * labels[:, :, None, None]


def cam_to_label(cams: Tensor, labels: Tensor, bkg: float) -> Tensor:
    """The strongest class of each pixel, background up to a score of ``bkg``: int64 (B, H, W), nothing ignored.

    Args:
        cams: (B, K, H, W).
        labels: multi-hot (B, K).
    """
    score, index = valid_cams(cams, labels).max(1)
    return torch.where(score > bkg, index + 1, 0)


def uncertain_label(
    cams: Tensor, labels: Tensor, boxes: Tensor, config: LabelConfig, image_size: tuple[int, int]
) -> Tensor:
    """The strongest class of each position, ignored between the thresholds and outside the box: int64 (B, h, w).

    Args:
        cams: (B, K, h, w), on the patch grid for the patch contrast loss.
        labels: multi-hot (B, K).
        boxes: (B, 4) in pixels of the image.
        image_size: height and width of the image that the boxes belong to; only read with ``scale_box``.
    """
    size = size_of(cams)
    score, index = valid_cams(cams, labels).max(1)
    label = torch.where(score > config.bkg, index + 1, 0)
    label = label.masked_fill(score <= config.high, IGNORE).masked_fill(score <= config.low, 0)
    inside = inside_boxes(boxes, size, image_size if config.scale_box else size)
    return label.masked_fill(~inside, IGNORE)


def inside_boxes(boxes: Tensor, size: tuple[int, int], image_size: tuple[int, int]) -> Tensor:
    """The positions of a grid whose centre is inside the box: bool (B, h, w).

    Args:
        boxes: (B, 4) in pixels of the image.
        size: height and width of the grid.
        image_size: height and width of the image; equal to ``size`` where a box counts in positions of the grid.
    """
    top, bottom, left, right = boxes[:, :, None].unbind(1)  # B 1 each
    row, column = (
        (torch.arange(cells, device=boxes.device) + 0.5) * (pixels / cells)
        for cells, pixels in zip(size, image_size, strict=True)
    )
    in_rows = (top <= row) & (row < bottom)
    in_columns = (left <= column) & (column < right)
    return in_rows[:, :, None] & in_columns[:, None, :]


def roi_mask(cams_aux: Tensor, labels: Tensor, config: LabelConfig) -> Tensor:
    """0 for background, 1 for uncertain, 2 for foreground: uint8 (B, H, W). The box plays no part.

    Args:
        cams_aux: the auxiliary classifier's CAMs (B, K, H, W).
        labels: multi-hot (B, K).
    """
    score = valid_cams(cams_aux, labels).amax(1)
    return (score > config.low).to(torch.uint8).masked_fill_(score >= config.high, 2)


def affinity_mask(label_map: Tensor) -> Tensor:
    """Pairs of patches by their classes: uint8 (B, h*w, h*w), 1 for the same, 0 for different classes.

    Pairs of a patch with itself and pairs with an ignored patch are 255. Two background patches are of one class.

    Args:
        label_map: (B, h, w), as made by `uncertain_label`.
    """
    flat = label_map.flatten(1)
    ignored = flat == IGNORE
    same = (flat[:, :, None] == flat[:, None, :]).to(torch.uint8)
    same.masked_fill_(ignored[:, :, None] | ignored[:, None, :], IGNORE)
    same.diagonal(dim1=1, dim2=2).fill_(IGNORE)
    return same


def denormalise(images: Tensor) -> Tensor:
    """ImageNet-normalised images (B, 3, H, W) as numbers from 0 to 255, not rounded."""
    return images.float() * STD_255.to(images.device) + MEAN_255.to(images.device)


def truncated(images: Tensor) -> Tensor:
    """ImageNet-normalised images (B, 3, H, W) as bytes, rounded towards zero: PAR's input in the reference.

    A value that normalisation left just below an integer loses one by this.
    """
    return denormalise(images).to(torch.uint8)


@torch.no_grad()
def refined_label(images: Tensor, cams: Tensor, labels: Tensor, boxes: Tensor, config: LabelConfig) -> Tensor:
    """The decoder's target: CAMs refined by PAR at half size, with two scores for the background.

    A pixel is background if the low threshold as the background's score still makes it so, foreground if the high one
    still does; other pixels, and all outside the box, are ignored.

    Args:
        images: ImageNet-normalised (B, 3, H, W).
        cams: normalised CAMs (B, K, H, W).
        labels: multi-hot (B, K).
        boxes: (B, 4) in pixels.

    Returns:
        int64 (B, H, W): 0..K and 255 (reference: refine_cams_with_bkg_v2).
    """
    parts = zip(*(rows.split(images_at_once(images)) for rows in (images, cams, labels)), strict=True)
    label = torch.cat([_refined(pixels, maps, own, config) for pixels, maps, own in parts])
    full = size_of(images)
    return label.masked_fill_(~inside_boxes(boxes, full, full), IGNORE)


def images_at_once(images: Tensor) -> int:
    """Number of images that one call refines; it pads all to the most classes of any.

    On accelerators the whole batch; on CPUs one, as larger maps leave the cache.
    """
    return 1 if images.device.type == "cpu" else len(images)


def _refined(images: Tensor, cams: Tensor, labels: Tensor, config: LabelConfig) -> Tensor:
    """`refined_label` before the box is applied."""
    full = size_of(images)
    half = full[0] // 2, full[1] // 2
    par = PAR(_resized(truncated(images) / 255, half), config.par_dilations, config.par_iterations)

    classes, present = present_classes(labels)  # B n each
    kept = cams[torch.arange(len(cams), device=cams.device)[:, None], classes].float()
    kept = _resized(kept, half).masked_fill(~present[:, :, None, None], -torch.inf)
    scores = []
    for threshold in (config.high, config.low):
        background = torch.full_like(kept[:, :1], threshold)
        scores.append(torch.cat([background, kept], dim=1).softmax(1))
    refined = _resized(par(torch.cat(scores, dim=1)), full)  # B 2(1+n) H W
    # 0: background, i: the image's i-th class. On CPUs the indices of max are several times faster than argmax.
    high, low = (part.max(1).indices for part in refined.chunk(2, dim=1))

    class_of = F.pad(classes + 1, (1, 0))  # B 1+n
    label = class_of.gather(1, high.flatten(1)).view_as(high)
    return label.masked_fill_(high == 0, IGNORE).masked_fill_((high == 0) & (low == 0), 0)


def present_classes(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The labelled classes of each image in ascending order, padded to the most of any image (and at least one).

    Args:
        labels: multi-hot (B, K).

    Returns:
        Class indices (B, n), and whether they are labelled; the others are padding.
    """
    labelled = labels > 0
    most = max(int(labelled.sum(1).max()), 1)
    classes = labelled.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return classes, labelled.gather(1, classes)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
