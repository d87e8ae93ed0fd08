"""ToCo's local crops: small views of regions that are not certain foreground by the auxiliary CAM.

Symbols: B batch, n crops of an image, s their side. (Reference: crop_from_roi_neg.)
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from common.run.processes import Processes
from common.tensors import size_of
from methods.toco.config import CROPS, window_size

GLOBAL_VIEWS = 2
FOREGROUND = 2  # in the region map
NEGATIVE_SHARE = 0.2  # a crop whose region map has at most this mean counts as background


class LocalCrops(NamedTuple):
    """Crops, and their facts for the class token contrast.

    Attributes:
        images: (n*B, 3, s, s), crop by crop: the first crops of all images come first.
        flags: whether a view is positive, bool (B, 2+n); the two global views, which come first, always are.
        topleft: row and column of each crop's first pixel, int64 (B, n, 2).
    """

    images: Tensor
    flags: Tensor
    topleft: Tensor


def draw_picks(draws: torch.Generator, images: int, crops: int, processes: Processes) -> Tensor:
    """Uniform draws (B, n) in [0, 1) that choose this process's crops, float64 on the CPU.

    They are drawn for the whole micro-batch, so that any number of processes, and a resumed run, cuts the same crops.

    Args:
        draws: a generator that is the same on all processes.
        images: B, the images of this process.
        crops: n.
    """
    picks = torch.rand(images * processes.world, crops, generator=draws, dtype=torch.float64)
    return picks[processes.rank * images : (processes.rank + 1) * images]


def local_crops(
    images: Tensor, roi: Tensor, picks: Tensor | Callable[[Tensor], Tensor], crop_size: int, crops: int = CROPS
) -> LocalCrops:
    """Cuts n crops from each image around pixels that are background or uncertain.

    A crop is negative if it has next to no foreground: foreground pixels count twice, uncertain ones once, as in the
    reference (whose paper speaks of uncertain regions alone).

    Args:
        images: (B, 3, H, W).
        roi: region map (B, H, W): 0 background, 1 uncertain, 2 foreground.
        picks: uniform draws (B, n) in [0, 1), of which `draw_ranks` makes the choice; or a function that maps the
            numbers of candidates (B,) to their chosen ranks (B, n).
        crop_size: s.
        crops: n; read only if ``picks`` is a function.

    Raises:
        UserError: the images have no room for n different crops.
    """
    if isinstance(picks, Tensor):
        crops = picks.shape[1]
    candidates = crop_candidates(roi, crop_size, crops)
    counts = candidates.flatten(1).sum(1)
    ranks = draw_ranks(picks, counts) if isinstance(picks, Tensor) else picks(counts)
    topleft = positions(candidates, ranks.to(roi.device))
    return LocalCrops(*cut(images, roi, topleft, crop_size), topleft)


def crop_candidates(roi: Tensor, crop_size: int, crops: int) -> Tensor:
    """Permitted places of a crop's first pixel: bool (B, H', W') over the window.

    The window leaves out a margin of half a crop: a position in it is the centre of a crop and, counted from the
    window's corner, the crop's first pixel in the image. Candidates are all centres that are not foreground; in images
    with fewer than ``crops`` such centres, the whole window.

    Raises:
        UserError: the images have no room for ``crops`` different crops.
    """
    height, width = window_size(*size_of(roi), crop_size, crops)
    margin = crop_size // 2
    candidates = roi[:, margin : margin + height, margin : margin + width] < FOREGROUND
    too_few = candidates.flatten(1).sum(1) < crops
    return candidates | too_few[:, None, None]


def draw_ranks(picks: Tensor, counts: Tensor) -> Tensor:
    """Chooses n of each image's candidates, all different and every set equally likely: int64 (B, n) from 0.

    Floyd's method: the j-th draw is among the first counts - n + j + 1 candidates; if it hits a chosen candidate, the
    last of them is taken.

    Args:
        picks: uniform draws (B, n) in [0, 1).
        counts: candidates of each image (B,), at least n.
    """
    picks = picks.to(counts.device, torch.float64)
    crops = picks.shape[1]
    ranks = picks.new_empty(picks.shape, dtype=torch.int64)
    for number in range(crops):
        last = counts - crops + number
        drawn = (picks[:, number] * (last + 1)).long()
        taken = (ranks[:, :number] == drawn[:, None]).any(1)
        ranks[:, number] = torch.where(taken, last, drawn)
    return ranks


def positions(candidates: Tensor, ranks: Tensor) -> Tensor:
    """Row and column of candidates by their ranks in row-major order: int64 (B, n, 2).

    Args:
        candidates: bool (B, H', W').
        ranks: int64 (B, n), from 0.
    """
    seen = candidates.flatten(1).cumsum(1)  # B H'*W': candidates up to each position
    place = torch.searchsorted(seen, ranks + 1)
    width = candidates.shape[-1]
    return torch.stack([place // width, place % width], dim=2)


def cut(images: Tensor, roi: Tensor, topleft: Tensor, crop_size: int) -> tuple[Tensor, Tensor]:
    """Crops and flags (see `LocalCrops`) at given positions (B, n, 2)."""
    steps = torch.arange(crop_size, device=images.device)
    rows, columns = (start.t()[:, :, None] + steps for start in topleft.unbind(2))  # n B s each
    place = torch.arange(len(images), device=images.device)[:, None, None], rows[..., None], columns[:, :, None]
    parts = images.transpose(0, 1)[:, *place]  # 3 n B s s
    share = roi[place].sum((2, 3)) / crop_size**2  # n B
    flags = torch.cat([share.new_ones(GLOBAL_VIEWS, len(images), dtype=torch.bool), share > NEGATIVE_SHARE])
    return parts.flatten(1, 2).transpose(0, 1).contiguous(), flags.t().contiguous()
