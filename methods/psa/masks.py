"""Pseudo masks of a whole image list by PSA's random walk."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from common.data.dataset import ImageSet, class_names
from common.data.whole import image_batches
from common.masks.from_seeds import NONE, read_class_maps
from common.run.device import Runtime
from methods.psa.affinity import AffinityNet
from methods.psa.config import PSAConfig
from methods.psa.walk import padded, pseudo_mask


@torch.inference_mode()
def pseudo_masks(
    model: AffinityNet, images: ImageSet, seeds: Path, config: PSAConfig, runtime: Runtime,
    is_done: Callable[[str], bool], thresholds: Mapping[int, float] = NONE,
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
            features = model(padded(pixels, model.stride))  # b c h w
        for index, cells in zip(indices, features, strict=True):
            image_id = images.ids[index]
            seed = read_class_maps(seeds, image_id, (height, width), classes, thresholds)
            yield index, pseudo_mask(seed, (height, width), cells, model.stride, config.model.radius, config.walk)
