"""ToCo's products of CAMs: label maps of patches and pixels, and region maps for local crops.

Symbols: B batch, C foreground classes, h*w patches. CAMs are normalised to [0, 1]; label maps hold 0 for background,
class index + 1, and 255 for "ignore". Boxes are (top, bottom, left, right) in pixels of the training image: the part
that is not padding. Nothing here has gradients. (Reference: utils/camutils.py.)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from common.data.classes import IGNORE_LABEL
from common.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from common.tensors import size_of
from methods.toco.config import LabelConfig
from methods.toco.par import PAR

MEAN_255 = torch.tensor([255 * value for value in IMAGENET_MEAN]).view(3, 1, 1)
STD_255 = torch.tensor([255 * value for value in IMAGENET_STD]).view(3, 1, 1)


def valid_cams(cams: Tensor, labels: Tensor) -> Tensor:
    """CAMs (B, C, H, W) with zeros for classes that are not in the labels (B, C)."""
    return cams * labels[:, :, None, None]


def cam_to_label(cams: Tensor, labels: Tensor, bkg: float) -> Tensor:
    """The strongest class of each pixel, background up to a value of ``bkg``: int64 (B, H, W), nothing ignored.

    Args:
        cams: (B, C, H, W).
        labels: multi-hot (B, C).
    """
    value, index = valid_cams(cams, labels).max(1)
    return torch.where(value > bkg, index + 1, 0)


def uncertain_label(
    cams: Tensor, labels: Tensor, boxes: Tensor, config: LabelConfig, image_size: tuple[int, int]
) -> Tensor:
    """The strongest class of each position, ignored between the thresholds and outside the box: int64 (B, h, w).

    Args:
        cams: (B, C, h, w), on the patch grid for the patch contrast loss.
        labels: multi-hot (B, C).
        boxes: (B, 4) in pixels of the image.
        image_size: height and width of the boxes' image; read only with ``scale_box``.
    """
    size = size_of(cams)
    value, index = valid_cams(cams, labels).max(1)
    label = torch.where(value > config.bkg, index + 1, 0)
    label = label.masked_fill(value <= config.high, IGNORE_LABEL).masked_fill(value <= config.low, 0)
    inside = inside_boxes(boxes, size, image_size if config.scale_box else size)
    return label.masked_fill(~inside, IGNORE_LABEL)


def inside_boxes(boxes: Tensor, size: tuple[int, int], image_size: tuple[int, int]) -> Tensor:
    """Whether the centre of each cell of a grid is inside the box: bool (B, h, w).

    Args:
        boxes: (B, 4) in pixels of the image.
        size: height and width of the grid.
        image_size: height and width of the image; equal to ``size`` if the box counts in cells of the grid.
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
    """The region map, which ignores the box: 0 background, 1 uncertain, 2 foreground; uint8 (B, H, W).

    Args:
        cams_aux: the auxiliary classifier's CAMs (B, C, H, W).
        labels: multi-hot (B, C).
    """
    value = valid_cams(cams_aux, labels).amax(1)
    return (value > config.low).to(torch.uint8).masked_fill_(value >= config.high, 2)


def affinity_mask(label_map: Tensor) -> Tensor:
    """Pairs of patches by their classes: uint8 (B, h*w, h*w), 1 for the same class, 0 for different classes.

    A pair of a patch with itself or with an ignored patch is 255. Two background patches have the same class.

    Args:
        label_map: (B, h, w), as made by `uncertain_label`.
    """
    flat = label_map.flatten(1)
    ignored = flat == IGNORE_LABEL
    same = (flat[:, :, None] == flat[:, None, :]).to(torch.uint8)
    same.masked_fill_(ignored[:, :, None] | ignored[:, None, :], IGNORE_LABEL)
    same.diagonal(dim1=1, dim2=2).fill_(IGNORE_LABEL)
    return same


def denormalise(images: Tensor) -> Tensor:
    """ImageNet-normalised images (B, 3, H, W) as numbers from 0 to 255, not rounded."""
    std, mean = (values.to(images.device, non_blocking=True) for values in (STD_255, MEAN_255))
    return images.float() * std + mean


def truncated(images: Tensor) -> Tensor:
    """ImageNet-normalised images (B, 3, H, W) as bytes, rounded towards zero: PAR's input in the reference.

    A value that normalisation left just below an integer loses one by this.
    """
    return denormalise(images).to(torch.uint8)


@torch.no_grad()
def refined_label(
    images: Tensor, cams: Tensor, labels: Tensor, boxes: Tensor, config: LabelConfig, most: int | None = None
) -> Tensor:
    """The decoder's target: CAMs refined by PAR at half size, with two values for the background.

    A pixel is background if background wins with the low threshold as its value, foreground if a class wins against
    the high threshold; all other pixels, and those outside the box, are ignored.

    Args:
        images: ImageNet-normalised (B, 3, H, W).
        cams: normalised CAMs (B, C, H, W).
        labels: multi-hot (B, C).
        boxes: (B, 4) in pixels.
        most: `most_labels`; None: the host reads the labels, and waits for them on a GPU.

    Returns:
        int64 (B, H, W): 0..C and 255 (reference: refine_cams_with_bkg_v2).
    """
    together = images_at_once(images)
    parts = zip(*(rows.split(together) for rows in (images, cams, labels)), strict=True)
    of_each = most if together == len(images) else None
    label = torch.cat([_refined(pixels, maps, own, config, of_each) for pixels, maps, own in parts])
    full = size_of(images)
    return label.masked_fill_(~inside_boxes(boxes, full, full), IGNORE_LABEL)


def images_at_once(images: Tensor) -> int:
    """Images per call of the refinement, which pads all to the largest number of classes.

    On accelerators the whole batch; on CPUs one, as larger maps leave the cache.
    """
    return 1 if images.device.type == "cpu" else len(images)


def _refined(images: Tensor, cams: Tensor, labels: Tensor, config: LabelConfig, most: int | None) -> Tensor:
    """`refined_label` before the box is applied."""
    full = size_of(images)
    half = full[0] // 2, full[1] // 2
    par = PAR(_resized(truncated(images) / 255, half), config.par_dilations, config.par_iterations)

    classes, present = present_classes(labels, most)  # B n each
    kept = cams[torch.arange(len(cams), device=cams.device)[:, None], classes].float()
    kept = _resized(kept, half).masked_fill(~present[:, :, None, None], -torch.inf)
    maps = []
    for threshold in (config.high, config.low):
        background = torch.full_like(kept[:, :1], threshold)
        maps.append(torch.cat([background, kept], dim=1).softmax(1))
    refined = _resized(par(torch.cat(maps, dim=1)), full)  # B 2(1+n) H W
    # 0: background, i: the image's i-th class. On CPUs the indices of max are several times faster than argmax.
    high, low = (part.max(1).indices for part in refined.chunk(2, dim=1))

    class_of = F.pad(classes + 1, (1, 0))  # B 1+n
    label = class_of.gather(1, high.flatten(1)).view_as(high)
    return label.masked_fill_(high == 0, IGNORE_LABEL).masked_fill_((high == 0) & (low == 0), 0)


def most_labels(labels: Tensor) -> int:
    """The largest number of labels of an image, at least 1; of multi-hot labels (B, C)."""
    return max(int((labels > 0).sum(1).max()), 1)


def present_classes(labels: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
    """The labelled classes of each image in ascending order, padded to the largest number of any image (at least 1).

    Args:
        labels: multi-hot (B, C).
        most: see `refined_label`.

    Returns:
        Class indices (B, n), and whether they are labelled or padding.
    """
    labelled = labels > 0
    most = most or most_labels(labels)
    classes = labelled.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return classes, labelled.gather(1, classes)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
