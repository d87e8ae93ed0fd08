"""Pseudo masks of a whole image list by IRN's random walk."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from common.data.dataset import ImageSet, class_names
from common.data.whole import image_batches
from common.run.device import Runtime
from methods.irn.config import IRNConfig
from methods.irn.model import IRN
from methods.irn.walk import boundaries, read_scores, walk_mask


@torch.inference_mode()
def random_walks(
    model: IRN, images: ImageSet, seeds: Path, config: IRNConfig, runtime: Runtime, is_done: Callable[[str], bool]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields ``(index, mask)`` for this process's share of an image set; masks are uint8 (H, W)."""
    infer, classes = config.infer, len(class_names(config.data))
    batches = image_batches(images, infer.batch_size, config.runtime.num_workers, runtime, is_done, "random walk")
    for indices, pixels in batches:
        with runtime.autocast():
            edges = boundaries(model.edge, pixels, infer.canvas)  # B h w
        height, width = pixels.shape[-2:]
        for index, edge in zip(indices, edges, strict=True):
            keys, scores = read_scores(seeds, images.ids[index], (height, width), classes)
            yield index, walk_mask(edge, keys, scores.to(runtime.device), (height, width), config.walk)
