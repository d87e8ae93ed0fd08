"""From seeds and boundaries to masks: the random walk along affinities (IRNet section 5).

Reference: step/make_sem_seg_labels.py.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.data.seeds import read_seed, seed_path
from common.data.thresholds import calibrated
from common.masks.from_seeds import NONE
from common.masks.pairs import pair_directions, random_walk
from common.run.errors import UserError
from methods.irn.config import STRIDE, WalkConfig
from methods.irn.paths import path_maximum

PAD_TO = 32  # the canvas of an image that is larger than the usual one has sides of multiples of this
SMALLEST = 1e-30  # least divisor of the maps: seeds may be zero everywhere


def grid_size(size: tuple[int, int]) -> tuple[int, int]:
    """Cells (h, w) of an image (H, W)."""
    height, width = size
    return (height - 1) // STRIDE + 1, (width - 1) // STRIDE + 1


@torch.inference_mode()
def boundaries(logits_of: Callable[[Tensor], Tensor], images: Tensor, canvas: int) -> Tensor:
    """Boundary probabilities from images and their mirror images together (reference: EdgeDisplacement).

    Both are put into the upper left corner of a canvas of zeros, as large as the training crops: group norms see the
    zeros, too. On accelerators image and mirror image are one batch; on CPUs one follows the other, as larger
    activations leave the cache.

    Args:
        logits_of: maps images (b, 3, S, S) to logits (b, 1, S/4, S/4).
        images: a batch (B, 3, H, W) of one size, ImageNet-normalised.
        canvas: side S; larger images get a larger canvas (the reference cuts them off).

    Returns:
        float32 (B, h, w).
    """
    height, width = images.shape[-2:]
    rows, columns = (max(canvas, math.ceil(side / PAD_TO) * PAD_TO) for side in (height, width))
    views = [F.pad(view, (0, columns - width, 0, rows - height)) for view in (images, images.flip(-1))]
    is_cpu = images.device.type == "cpu"
    found = [logits_of(view) for view in views] if is_cpu else logits_of(torch.cat(views)).chunk(2)
    h, w = grid_size((height, width))
    plain, mirrored = (logits[:, 0, :h, :w].float() for logits in found)
    return (plain / 2 + mirrored.flip(-1) / 2).sigmoid()


def walked(edge: Tensor, maps: Tensor, config: WalkConfig) -> Tensor:
    """Maps after the walk, which does not cross boundaries and does not start on them.

    Args:
        edge: boundary probabilities (h, w).
        maps: of the classes present, (n, h, w).

    Returns:
        float32 (n, h, w).
    """
    height, width = edge.shape
    reach = config.radius - 1
    directions = pair_directions(config.radius)
    around = reach, reach, 0, reach  # so that every cell is a source; a path into the margin meets a boundary
    affinity = 1 - path_maximum(F.pad(edge, around, value=1.0)[None], directions, config.radius)[0]
    start = F.pad(maps * (1 - edge), around)
    end = random_walk(start, affinity, directions, config.radius, config.beta, config.log2_rounds)
    return end[:, :height, reach : reach + width]


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (n, h, w) of at least one class at the image's size (H, W), divided by the largest value: (n, H, W)."""
    large = F.interpolate(maps[None], scale_factor=STRIDE, mode="bilinear", align_corners=False)[0]
    large = large[:, : size[0], : size[1]]
    return large / large.max().clamp(min=SMALLEST)


def label_map(maps: Tensor, keys: Sequence[int], background: float) -> np.ndarray:
    """uint8 (H, W): ``keys[i]`` + 1 where map i of (n, H, W) is largest, 0 where none is above ``background``."""
    best, winner = maps.max(dim=0)
    labels = torch.where(best > background, torch.tensor(keys, device=best.device)[winner] + 1, 0)
    return labels.to(torch.uint8).cpu().numpy()


def walk_mask(edge: Tensor, keys: Sequence[int], maps: Tensor, size: tuple[int, int], config: WalkConfig) -> np.ndarray:
    """The pseudo mask of an image, uint8 (H, W).

    Args:
        edge: boundary probabilities (h, w).
        keys: the classes present; empty: all is background.
        maps: of these classes, (n, h, w).
        size: (H, W).
    """
    if not len(keys):
        return np.zeros(size, dtype=np.uint8)
    return label_map(enlarged(walked(edge, maps, config), size), keys, config.background)


def read_grid_maps(
    folder: Path, image_id: str, size: tuple[int, int], classes: int, thresholds: Mapping[int, float] = NONE
) -> tuple[list[int], Tensor]:
    """The classes of an image's seed and their maps on the grid (n, h, w).

    Maps of the image's size are averaged over the 4 x 4 pixels of each cell; maps of the grid's size, such as CRT's
    strided maps, are used unchanged.

    Args:
        size: (H, W) of the image.
        classes: C, of the data set.
        thresholds: of classes, by which the seed is calibrated.

    Raises:
        UserError: the seed is missing or damaged, or has another size or other classes.
    """
    path = seed_path(folder, image_id)
    if path is None:
        raise UserError(f"no seed of {image_id} in {folder}")
    seed = read_seed(path)
    keys = sorted(seed)
    grid = grid_size(size)
    if not keys:
        return [], torch.zeros(0, *grid)
    if keys[0] < 0 or keys[-1] >= classes:
        raise UserError(f"{path} holds classes {keys}; the data set has 0 to {classes - 1}")
    seed = calibrated(seed, thresholds)
    maps = torch.from_numpy(np.stack([seed[key] for key in keys]))
    if maps.shape[1:] == grid:
        return keys, maps
    if maps.shape[1:] != tuple(size):
        raise UserError(
            f"{path} holds maps of {tuple(maps.shape[1:])}, but the image is of {tuple(size)} pixels (H, W) and its "
            f"grid of {grid}"
        )
    return keys, F.avg_pool2d(maps, STRIDE, ceil_mode=True, count_include_pad=False)
