"""Pseudo masks of a whole image list by IRN's random walk."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from common.data.dataset import ImageSet, class_names
from common.data.whole import image_batches
from common.masks.from_seeds import NONE
from common.run.device import Runtime
from methods.irn.config import IRNConfig
from methods.irn.model import IRN
from methods.irn.walk import boundaries, read_grid_maps, walk_mask


@torch.inference_mode()
def pseudo_masks(
    model: IRN, images: ImageSet, seeds: Path, config: IRNConfig, runtime: Runtime, is_done: Callable[[str], bool],
    thresholds: Mapping[int, float] = NONE,
) -> Iterator[tuple[int, np.ndarray]]:  # fmt: skip
    """Yields ``(index, mask)`` for this process's share of an image set; masks are uint8 (H, W).

    Args:
        thresholds: of classes, by which the seeds are calibrated.
    """
    infer = config.infer
    classes = len(class_names(config.data))
    for indices, pixels in image_batches(images, infer.batch_size, infer.num_workers, runtime, is_done, "masks"):
        height, width = pixels.shape[-2:]
        with runtime.autocast():
            edges = boundaries(model.edge, pixels, infer.canvas)  # b h w
        for index, edge in zip(indices, edges, strict=True):
            keys, maps = read_grid_maps(seeds, images.ids[index], (height, width), classes, thresholds)
            yield index, walk_mask(edge, keys, maps.to(runtime.device), (height, width), config.walk)
