"""Segments by a segment-anything model, through the pipeline for mask generation of transformers (an optional extra).

The network was trained on masks: seeds refined by its segments have more supervision than image labels.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.data.dataset import ImageSet
from common.run.device import Runtime
from common.run.errors import UserError, first_line
from common.run.progress import progress
from methods.segments.config import SamConfig
from methods.segments.folders import RegionFolder, Regions

# Turns an RGB image into {"masks": bool (H, W) each, "scores": a number each}, as transformers' pipeline does.
Generator = Callable[[Image.Image], Mapping[str, Any]]


def mask_generator(config: SamConfig, runtime: Runtime) -> Generator:
    """The pipeline with its weights.

    Raises:
        UserError: transformers is not installed, or the weights are missing or of another network.
    """
    if not config.weights:
        raise UserError(
            "which weights? Name a local folder or a name on the hub: segments.sam.weights=pretrained/sam-vit-base"
        )
    if not Path(config.weights).exists() and config.weights.startswith((".", "/", "pretrained/")):
        raise UserError(f"no weights in {config.weights} (from {Path.cwd()}); see docs/beyond.md")
    try:
        from transformers import pipeline
    except ImportError as error:
        raise UserError(
            f"segment-anything models need the package transformers ({first_line(error)}). Install it with: pip "
            "install -e '.[sam]', or take --with meanshift, slic or felzenszwalb"
        ) from error
    try:
        model = pipeline("mask-generation", model=config.weights, device=runtime.device)
    except Exception as error:  # whatever a hub, a network or a foreign folder leads to
        raise UserError(
            f"{config.weights} cannot be loaded for mask generation ({type(error).__name__}: {first_line(error)}). It "
            "must be a folder, or a name on the hub, of SAM, SAM 2 or SAM 3"
        ) from error
    return lambda image: model(image, points_per_batch=config.points_per_batch)


def regions_of(output: Mapping[str, Any], size: tuple[int, int], smallest: int) -> Regions:
    """The regions of an image of ``size`` (H, W) in what a pipeline returned, and their scores.

    Raises:
        UserError: the output has no masks of the image's size, or not one score each.
    """
    masks = [np.asarray(mask) for mask in output.get("masks", ())]
    scores = [float(score) for score in output.get("scores", ())]
    if len(masks) != len(scores) or any(mask.shape != size for mask in masks):
        raise UserError(
            f"mask generation gave {len(masks)} masks of sizes {sorted({mask.shape for mask in masks})} and "
            f"{len(scores)} scores for an image of {size} pixels (height, width)"
        )
    kept = [(mask > 0, score) for mask, score in zip(masks, scores, strict=True)]
    kept = [(mask, score) for mask, score in kept if mask.sum() >= smallest]
    return [mask for mask, _ in kept], [score for _, score in kept]


def generated(
    generate: Generator, images: ImageSet, folder: RegionFolder, smallest: int, runtime: Runtime
) -> Iterator[tuple[int, Regions]]:
    """Yields ``(index, regions)`` for this process's share of an image set, without images that are done."""
    share = [index for index in runtime.processes.shard(images.unique()) if not folder.is_done(images.ids[index])]
    for index in progress(share, "segments", runtime.processes.is_main):
        image = images.load_image(index)
        yield index, regions_of(generate(image), (image.height, image.width), smallest)
