"""ToCo's CAMs over flips and scales, and the maps that become its seeds.

Symbols: B batch, C foreground classes, H x W the images' size, n labelled classes of an image.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from common.masks.network import resized, segment_logits
from common.masks.options import SegmentViews
from common.seeds.cam import Labels, SeedMaps
from common.seeds.infer import MapsOf
from common.tensors import size_of
from methods.toco.config import SEED_MAPS, ToCoInferConfig
from methods.toco.model import ToCo

EPSILON = 1e-5
Pair = tuple[Tensor, Tensor]  # CAMs of the classifier and of the auxiliary classifier


@torch.no_grad()
def multi_scale_cams(
    cams_of: Callable[[Tensor], Pair],
    images: Tensor,
    scales: Sequence[float] = (1.0, 0.5, 1.5),
    first: Pair | None = None,
    flip: bool = True,
) -> Pair:
    """Both kinds of CAMs, summed over scales and normalised (reference: utils/camutils.py).

    Each view's maps are brought to the images' size (bilinear), and the larger value of an image and its mirror image
    counts, if it is above 0. The minimum over the pixels is subtracted from the sum, which is then divided by its
    maximum + 1e-5. On accelerators image and mirror image are one batch; on CPUs one follows the other, as larger
    activations leave the cache.

    Args:
        cams_of: maps images (b, 3, H', W') to CAMs and auxiliary CAMs, each (b, C, h, w), not rectified.
        images: a batch (B, 3, H, W).
        scales: scale 1 is always computed, and first.
        first: the result of ``cams_of`` for the images themselves, if it is known.
        flip: whether mirror images take part.

    Returns:
        CAMs and auxiliary CAMs, each float32 (B, C, H, W), values in [0, 1).
    """
    height, width = images.shape[-2:]
    totals = [images.new_zeros((), dtype=torch.float32)] * 2
    for scale in (1.0, *(scale for scale in scales if scale != 1.0)):
        view = images if scale == 1.0 else resized(images, (int(scale * height), int(scale * width)))
        plain, mirrored = _of_view(cams_of, view, first if scale == 1.0 else None, flip)
        for kind, maps in enumerate(plain):
            best = resized(maps.float(), (height, width))
            if mirrored is not None:
                best = torch.maximum(best, resized(mirrored[kind].float(), (height, width)).flip(-1))
            totals[kind] = totals[kind] + best.relu()
    cams, cams_aux = map(_normalised, totals)
    return cams, cams_aux


def _of_view(
    cams_of: Callable[[Tensor], Pair], view: Tensor, known: Pair | None, flip: bool
) -> tuple[Pair, Pair | None]:
    """Maps of a view and of its mirror image; the second are not mirrored back."""
    if not flip:
        return known or cams_of(view), None
    if known is not None or view.device.type == "cpu":
        return known or cams_of(view), cams_of(view.flip(-1))
    cams, cams_aux = (maps.chunk(2) for maps in cams_of(torch.cat([view, view.flip(-1)])))
    return (cams[0], cams_aux[0]), (cams[1], cams_aux[1])


def _normalised(maps: Tensor) -> Tensor:
    """Maps (B, C, H, W) from 0 to just below 1 over their pixels."""
    maps = maps - maps.amin((-2, -1), keepdim=True)
    return maps / (maps.amax((-2, -1), keepdim=True) + EPSILON)


def seed_maps(model: ToCo, config: ToCoInferConfig) -> MapsOf:
    """The maps of seed inference, as configured."""
    if config.seed_map == "seg":
        flip = "max" if config.flip else "none"
        views = SegmentViews(resize=0, scales=list(config.seg_scales), flip=flip, merge="sum")
        return functools.partial(_segmentation_maps, model.segment, views)
    return functools.partial(_cam_maps, model.cams, config)


@torch.inference_mode()
def _cam_maps(
    cams_of: Callable[[Tensor], Pair], config: ToCoInferConfig, images: Tensor, labels: Labels
) -> SeedMaps:
    """(Auxiliary) CAMs of squares of ``cam_size``, at the images' size (reference: infer_cam.py)."""
    side = config.cam_size
    views = resized(images, (side, side)) if side else images
    cams = multi_scale_cams(cams_of, views, config.scales, flip=config.flip)[SEED_MAPS.index(config.seed_map)]
    return _labelled(resized(cams, size_of(images)), labels)


@torch.inference_mode()
def _segmentation_maps(
    logits_of: Callable[[Tensor], Tensor], views: SegmentViews, images: Tensor, labels: Labels
) -> SeedMaps:
    """Probabilities of the segmentation (reference: infer_seg_as_cam.py)."""
    logits = segment_logits(logits_of, images, size_of(images), views)  # B C+1 H W
    return _labelled(logits.softmax(dim=1)[:, 1:], labels)


def _labelled(maps: Tensor, labels: Labels) -> SeedMaps:
    """The maps, of (B, C, H, W), of each image's labelled classes (labels (B, C)), in ascending order."""
    assert isinstance(labels, Tensor), "classes are chosen by the segmentation: scripts/predict.py"
    return SeedMaps(
        [own[row.nonzero().flatten().to(own.device)] for own, row in zip(maps, labels, strict=True)], labels
    )
