"""From a seed to a pseudo mask by a random walk along affinities (PSA, section 3.3; reference: infer_aff.py).

Symbols: n classes of the image, H x W pixels, h x w cells of stride x stride pixels.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.data.seeds import Seed
from common.masks.pairs import pair_directions, random_walk
from methods.psa.affinity import pair_affinity
from methods.psa.config import WalkConfig


def padded(maps: Tensor, stride: int) -> Tensor:
    """Maps (..., H, W) with zeros to the right and below, up to multiples of the stride."""
    height, width = maps.shape[-2:]
    return F.pad(maps, (0, -width % stride, 0, -height % stride))


def with_background(seed: Seed, config: WalkConfig) -> Tensor:
    """The background map, then the maps of a seed's classes: float32 (n + 1, H, W)."""
    cams = torch.from_numpy(np.stack(list(seed.values())))
    if config.background == "alpha":
        background = (1 - cams.amax(0, keepdim=True)).pow(config.bg_alpha)
    else:
        background = torch.full_like(cams[:1], config.bg_thr)
    return torch.cat([background, cams])


@torch.inference_mode()
def walked_maps(maps: Tensor, features: Tensor, stride: int, radius: int, config: WalkConfig) -> Tensor:
    """Mean values of the cells after the walk, (n, h, w).

    Args:
        maps: (n, H, W), on any device.
        features: of the padded image (c, h, w).
        radius: of the pairs, in cells.
    """
    cells = F.avg_pool2d(padded(maps.to(features.device), stride), stride)
    directions = pair_directions(radius)
    affinity = pair_affinity(features[None], directions, radius)[0]
    return random_walk(cells, affinity, directions, radius, config.beta, config.log2_rounds)


@torch.inference_mode()
def pseudo_mask(
    seed: Seed, size: tuple[int, int], features: Tensor, stride: int, radius: int, config: WalkConfig
) -> np.ndarray:
    """The mask of a seed: uint8 (H, W), 0 background, class index + 1. Classes without a seed play no part.

    Args:
        seed: {class index: float32 (H, W)}.
        size: (H, W).
        features: see `walked_maps`.
        radius: of the pairs, in cells.
    """
    if not seed:
        return np.zeros(size, dtype=np.uint8)
    walked = walked_maps(with_background(seed, config), features, stride, radius, config)
    full = F.interpolate(walked[None], scale_factor=stride, mode="bilinear", align_corners=False)[0]
    labels = torch.tensor([0, *(key + 1 for key in seed)], dtype=torch.uint8, device=full.device)
    return labels[full[:, : size[0], : size[1]].argmax(0)].cpu().numpy()
