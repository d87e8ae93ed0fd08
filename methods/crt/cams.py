"""CRT's CAMs: an image at several scales, mirrored, cut into tiles; the tiles' maps merged, at two sizes.

Symbols: b images of one size (H, W), C classes, n labelled classes of an image, t the side of a tile, g of its map.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.data.transforms import eval_transform
from common.nets.tiles import cut_tiles, merge_tiles, padded_side, tile_grid
from common.nets.vit import ClassMaps
from common.run.device import Runtime
from common.seeds.cam import EPSILON, Evidence, SeedMaker
from common.seeds.infer import large_evidence
from common.tensors import size_of, sum_of
from methods.crt.config import CRTInferConfig
from methods.crt.model import DeiTBranch

STRIDE = 4  # of the maps for IRN


class CAMs(NamedTuple):
    """An image's maps of its n labelled classes, ascending; each from 0 to just below 1.

    Attributes:
        strided: (n, ceil(H / 4), ceil(W / 4)).
        high_res: (n, H, W).
    """

    strided: Tensor
    high_res: Tensor


@torch.inference_mode()
def crt_cams(model: DeiTBranch, views: Sequence[Tensor], labels: Tensor, config: CRTInferConfig) -> list[CAMs]:
    """CAMs of the labelled classes, summed over scales and normalised (reference: step/make_cam.py).

    Each scale's maps are brought to both sizes (bilinear) and summed; then a map is divided by its maximum + 1e-5.

    Args:
        views: as `view_evidence`.
        labels: multi-hot (b, C).
    """
    high_res, strided = view_evidence(model, views, config)
    return _both(strided, high_res, labels)


@torch.inference_mode()
def large_cams(
    model: DeiTBranch, image: Image.Image, labels: Tensor, config: CRTInferConfig, runtime: Runtime
) -> list[CAMs]:
    """As `crt_cams`, of an image that is cut into tiles of ``infer.tile``; strided maps are made of the blended ones.

    Args:
        labels: multi-hot (1, C).
    """
    high_res = large_evidence(lambda views: view_evidence(model, views, config)[0], image, config, runtime)
    size = -(-image.height // STRIDE), -(-image.width // STRIDE)
    strided = Evidence(high_res.logits, lambda index, keys: _summed([high_res.enlarged(index, keys)], size))
    return _both(strided, high_res, labels)


def _both(strided: Evidence, high_res: Evidence, labels: Tensor) -> list[CAMs]:
    keys = [row.nonzero().flatten() for row in labels]
    return [
        CAMs(*(_normalised(evidence.enlarged(index, own)) for evidence in (strided, high_res)))
        for index, own in enumerate(keys)
    ]


def view_evidence(model: DeiTBranch, views: Sequence[Tensor], config: CRTInferConfig) -> tuple[Evidence, Evidence]:
    """The evidence of images (b, 3, H, W): at their size, and at a quarter of it for IRN.

    Args:
        views: the images, of which only the size is used, then a batch at each scale: `image_and_views`.
    """
    images, *scaled = views
    by_scale = view_cams(model, scaled, config.tiles_on(images.device), config.flip)
    logits = sum_of(maps.logits for maps in by_scale) / len(by_scale)
    height, width = size_of(images)
    patch = model.patch_size
    strided = -(-height // STRIDE), -(-width // STRIDE)
    canvas = -(-height // patch) * patch, -(-width // patch) * patch

    def of_image(index: int, keys: Tensor) -> list[Tensor]:
        """Maps (n, h, w) of each scale; maps without a label are not enlarged."""
        return [maps.cams[index, keys.to(maps.cams.device)] for maps in by_scale]

    return (
        Evidence(logits, lambda index, keys: _summed(of_image(index, keys), canvas)[:, :height, :width]),
        Evidence(logits, lambda index, keys: _summed(of_image(index, keys), strided)),
    )


def seed_maps(model: DeiTBranch, config: CRTInferConfig) -> SeedMaker:
    """Seeds: the maps of `crt_cams` at the images' size."""
    return SeedMaker(lambda views: view_evidence(model, views, config)[0], _normalised)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Width and height of an image at a scale, in pixels; halves are rounded to even numbers."""
    width, height = size
    return max(round(width * scale), 1), max(round(height * scale), 1)


def image_and_views(image: Image.Image, scales: Sequence[float]) -> list[Tensor]:
    """An image, then the image at several scales (bicubic, antialiased); ImageNet-normalised, float32 (3, h, w)."""
    sizes = [scaled_size(image.size, scale) for scale in scales]
    whole = eval_transform(image)
    return [whole] + [
        whole if size == image.size else eval_transform(image.resize(size, Image.Resampling.BICUBIC)) for size in sizes
    ]


@torch.inference_mode()
def view_cams(model: DeiTBranch, views: Sequence[Tensor], tiles: int, flip: bool = True) -> list[ClassMaps]:
    """CAMs of views: attention of the class token times the class maps, merged over the tiles, rectified.

    A view and its mirror image are padded with 0 at the right and bottom; the mirror image's maps are mirrored back and
    added (reference: the pair in net/deit_cam.py). If a side is no whole number of patches, the mirrored maps are
    therefore off by a part of a cell. Every forward pass has the same number of tiles, whichever views they are from.

    Args:
        views: (b, 3, h_i, w_i), of any sizes.
        tiles: tiles per forward pass.
        flip: whether mirror images take part.

    Returns:
        For each view CAMs, float32 (b, C, ceil(h_i / 16), ceil(w_i / 16)), for patches of 16 pixels, and class logits
        (b, C) of `presence_logits`.
    """
    side = model.patch_size * model.grid
    padded = padded_views(views, side, flip)
    passes = regrouped((cut_tiles(images, side) for images in padded), tiles)
    maps, attention = map(torch.cat, zip(*(model.maps_with_attention(images) for images in passes), strict=True))
    maps = maps.float()  # of all tiles: C g g each
    grids = [tile_grid(*size_of(images), side) for images in padded]
    counts = [grid[0] * grid[1] * len(images) for grid, images in zip(grids, padded, strict=True)]
    found = []
    for view, grid, own, weights in zip(views, grids, maps.split(counts), attention.split(counts), strict=True):
        height, width = (-(-size // model.patch_size) for size in view.shape[-2:])
        merged = merge_tiles(weights * own, grid)[..., :height, :width].relu()
        cams = merged[: len(view)] + merged[len(view) :].flip(-1) if flip else merged
        logits = presence_logits(merge_tiles(own, grid)[..., :height, :width])
        found.append(ClassMaps(cams, logits.unflatten(0, (-1, len(view))).mean(0)))
    return found


def presence_logits(maps: Tensor) -> Tensor:
    """Class logits (b, C) of class maps (b, C, h, w), for the choice of an image's classes.

    Classes compete for each cell: its evidence for a class is the rectified map times its softmax over the classes. The
    largest cell counts, and its logarithm is the logit, so that evidence e gives the probability e / (1 + e). The mean
    of a map, which is trained, tells small objects badly.
    """
    evidence = maps.softmax(1) * maps.relu()
    return evidence.amax((-2, -1)).clamp(min=1e-6).log()


def padded_views(views: Sequence[Tensor], tile: int, flip: bool = True) -> list[Tensor]:
    """Views (b, 3, h_i, w_i), followed by their mirror images, padded at the right and bottom so that tiles cover them.

    The padding is 0, the mean colour. A result is (2b, 3, H_i, W_i), or (b, 3, H_i, W_i) without mirror images.
    """
    padded = []
    for view in views:
        images = torch.cat([view, view.flip(-1)]) if flip else view
        height, width = images.shape[-2:]
        padded.append(F.pad(images, (0, padded_side(width, tile) - width, 0, padded_side(height, tile) - height)))
    return padded


def regrouped(parts: Iterable[Tensor], count: int) -> Iterator[Tensor]:
    """Joins tensors (n_i, ...) and cuts them anew into tensors of ``count`` rows; the last may have fewer."""
    held = None
    for piece in (piece for part in parts for piece in part.split(count)):
        held = piece if held is None else torch.cat([held, piece])
        if len(held) >= count:
            yield held[:count]
            held = held[count:]
    if held is not None and len(held):
        yield held


def _summed(maps: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Maps (n, h_i, w_i) of any sizes, enlarged (bilinear) to (n, *size) and added."""
    if not len(maps[0]):
        return maps[0].new_zeros(0, *size)
    return sum_of(F.interpolate(part[None], size, mode="bilinear", align_corners=False)[0] for part in maps)


def _normalised(maps: Tensor) -> Tensor:
    """Each map (h, w) of (n, h, w) divided by its maximum + 1e-5."""
    return maps / (maps.amax((-2, -1), keepdim=True) + EPSILON)
