"""CAMs over flips and scales, and their normalisation.

A network's small maps of all classes are its `Evidence`. The classes are chosen then, by labels or by the class logits,
and their maps alone are enlarged: a map's value does not depend on the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.nets.tiles import blended, tile_rows
from common.nets.vit import ClassMaps, unpadded
from common.tensors import size_of, sum_of

EPSILON = 1e-5
LARGE = 2**21  # pixels

# Multi-hot labels (b, C) on the CPU, or the rule that makes them of class logits (b, C), float32 on the CPU.
Labels = Tensor | Callable[[Tensor], Tensor]


class SeedMaps(NamedTuple):
    """Seeds of a batch.

    Attributes:
        maps: for each image float32 (n, H, W), its n labelled classes in ascending order, values in [0, 1].
        labels: multi-hot (b, C), on the CPU.
        logits: class logits (b, C); None from a method that gives none with its maps.
    """

    maps: list[Tensor]
    labels: Tensor
    logits: Tensor | None = None


class Evidence(NamedTuple):
    """A batch after the network.

    Attributes:
        logits: class logits (b, C), means over the views.
        enlarged: gives the maps of some classes (n,) of an image, by its index in the batch: float32 (n, H, W) at the
            image's size, before normalisation.
    """

    logits: Tensor
    enlarged: Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class SeedMaker:
    """Makes seeds in two steps.

    Attributes:
        evidence: maps network input, such as images (b, 3, H, W), to its evidence.
        normalised: maps (n, H, W) to values in [0, 1], each for itself.
    """

    evidence: Callable[[Any], Evidence]
    normalised: Callable[[Tensor], Tensor]

    @torch.inference_mode()
    def __call__(self, inputs: Any, labels: Labels) -> SeedMaps:
        """Seeds of a batch."""
        return self.seeds(self.evidence(inputs), labels)

    @torch.inference_mode()
    def seeds(self, evidence: Evidence, labels: Labels) -> SeedMaps:
        """Seeds of a batch after the network."""
        logits, enlarged = evidence
        chosen = chosen_labels(labels, logits)
        maps = [self._normalised_each(enlarged(index, row.nonzero().flatten())) for index, row in enumerate(chosen)]
        return SeedMaps(maps, chosen, logits)

    def _normalised_each(self, maps: Tensor) -> Tensor:
        """Normalised maps; those of a large image one by one in their own place, to spare memory."""
        if maps.shape[-2] * maps.shape[-1] <= LARGE:
            return self.normalised(maps)
        for own in maps:
            own.copy_(self.normalised(own[None])[0])
        return maps


def chosen_labels(labels: Labels, logits: Tensor) -> Tensor:
    """Multi-hot labels (b, C) on the CPU: as they are given, or by the rule."""
    return labels if isinstance(labels, Tensor) else labels(logits.float().cpu())


def max_norm(maps: Tensor) -> Tensor:
    """Normalises each map over its pixels to [0, 1).

    A map (..., h, w) becomes relu(r - min r - e) / (max r - min r + e) with r = relu(map) and e = 1e-5. Gradients flow
    through the minimum and the maximum, as in the references.
    """
    rectified = maps.relu()
    low = rectified.amin((-2, -1), keepdim=True)
    high = rectified.amax((-2, -1), keepdim=True)
    return (rectified - low - EPSILON).relu() / (high - low + EPSILON)


def multi_view(
    network: Callable[[Tensor], ClassMaps], scales: Sequence[float] = (1.0,), flip: bool = True
) -> SeedMaker:
    """Seeds as sums of a network's maps over views, normalised by `max_norm`.

    Args:
        network: a function of images (b, 3, H, W).
    """
    return SeedMaker(lambda images: view_evidence(network, images, scales, flip), max_norm)


def view_evidence(
    network: Callable[[Tensor], ClassMaps], images: Tensor, scales: Sequence[float], flip: bool
) -> Evidence:
    """The evidence of a batch (B, 3, H, W) of one size.

    Each view's maps are brought to the image's size (bilinear), flipped back and summed. On accelerators image and
    mirror image are one batch; on CPUs one follows the other, as larger activations leave the cache.
    """
    size = size_of(images)
    none = images.new_zeros(0)  # `enlarged` does not keep the images
    views: list[ClassMaps] = []  # with mirror images, every second one is that of the view before
    sizes: list[tuple[int, int]] = []
    for scale in scales:
        view = (
            images if scale == 1.0 else F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
        )
        pair = [view, view.flip(-1)] if flip else [view]
        sizes += [size_of(view)] * len(pair)
        if images.device.type == "cpu":
            views += [network(part) for part in pair]
        else:
            cams, logits, padded = network(torch.cat(pair))
            parts = zip(cams.split(len(images)), logits.split(len(images)), strict=True)
            views += [ClassMaps(*part, padded) for part in parts]

    def enlarged(index: int, classes: Tensor) -> Tensor:
        total = none.new_zeros((len(classes), *size))
        for number, (cams, _, padded) in enumerate(views if len(classes) else ()):
            maps = unpadded(cams[index, classes].float()[None], padded, sizes[number])
            maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)[0]
            total += maps.flip(-1) if flip and number % 2 else maps
        return total

    return Evidence(sum_of(view.logits.float() for view in views) / len(views), enlarged)


@torch.inference_mode()
def tiled_evidence(
    evidence_of: Callable[[Any], Evidence], image: Image.Image, inputs_of: Callable[[Image.Image], Any], tile: int,
    overlap: float,
) -> Evidence:  # fmt: skip
    """The evidence of a large image, as a batch of one: its tiles go through the network one by one.

    A class's logit is the largest of all tiles. The maps of the tiles are blended before normalisation.

    Args:
        evidence_of: see `SeedMaker`.
        inputs_of: turns a part of the image into a batch of one on the device.
        tile: side of the tiles.
        overlap: see `common.nets.tiles.spans`.
    """
    tiles = [place for row in tile_rows(image.height, image.width, tile, overlap) for place in row]
    found = [evidence_of(inputs_of(image.crop(place.box))) for place in tiles]
    logits = torch.cat([part.logits for part in found]).amax(0, keepdim=True)
    size = image.height, image.width
    return Evidence(
        logits, lambda index, classes: blended(tiles, lambda number: found[number].enlarged(0, classes), size)
    )
