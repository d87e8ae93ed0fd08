"""Masks of a segmentation network for a whole image list: flips and scales, dense CRF, files, scores.

Logits are never stored: an image's CRF starts when its logits are there, in a pool of processes beside the network.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.crf.dense import crf_backend
from common.data.dataset import ImageSet
from common.data.outputs import MaskFolder, write_each
from common.data.stamp import MASKS, stamp_of
from common.data.transforms import eval_transform
from common.data.whole import Failures, ImageFiles, Transform, image_batches, single
from common.masks.crf_job import ImageFilter, refine_mask
from common.masks.options import SegmentConfig, SegmentViews
from common.masks.submission import write_submission
from common.nets.tiles import Tile, blended_bands, tile_rows
from common.run.device import Runtime
from common.run.folder import MASK_SCORES, REFINED_MASK_SCORES, RunFolder
from common.run.pool import WorkerPool, usable_workers
from common.score.options import EvalConfig
from common.score.report import NotScored, report, score_folder
from common.score.result import Evaluation


@torch.inference_mode()
def segment_logits(
    logits_of: Callable[[Tensor], Tensor], images: Tensor, size: tuple[int, int], views: SegmentViews
) -> Tensor:
    """Logits of flips and scales as one (reference: ToCo's infer_seg_voc.py and infer_seg_coco_ddp.py).

    Each view's logits are brought to ``size`` (bilinear) and flipped back; then mirror images join their scale, and
    scales each other, element by element. On accelerators image and mirror image are one batch; on CPUs one follows the
    other, as larger activations leave the cache.

    Args:
        logits_of: maps images (b, 3, H', W') to logits (b, C, h, w).
        images: a batch (B, 3, H', W') of one size.
        size: (H, W) of the result.

    Returns:
        float32 (B, C, H, W).
    """
    if views.resize:
        images = resized(images, (views.resize, views.resize))
    height, width = images.shape[-2:]
    by_scale = (
        images if scale == 1.0 else resized(images, (int(height * scale), int(width * scale))) for scale in views.scales
    )
    logits = (_view_logits(logits_of, view, size, views.flip) for view in by_scale)
    return functools.reduce(functools.partial(_joined, how=views.merge), logits)


def _view_logits(
    logits_of: Callable[[Tensor], Tensor], view: Tensor, size: tuple[int, int], flip: str
) -> Tensor:  # B C H W
    if flip == "none":
        return resized(logits_of(view).float(), size)
    if view.device.type == "cpu":
        plain, mirrored = logits_of(view), logits_of(view.flip(-1))
    else:
        plain, mirrored = logits_of(torch.cat([view, view.flip(-1)])).chunk(2)
    return _joined(resized(plain.float(), size), resized(mirrored.float(), size).flip(-1), flip)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps or images (B, C, h, w) brought to ``size`` (H, W), bilinear without antialiasing."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def _joined(first: Tensor, second: Tensor, how: str) -> Tensor:
    return first + second if how == "sum" else torch.maximum(first, second)


@dataclass(frozen=True)
class MaskFolders:
    """The folders of one list.

    Attributes:
        plain: the largest logit's labels, ``segs/<list>/``.
        refined: the labels after the CRF, ``segs_crf/<list>/``; None without a CRF.
        crf_image: makes the CRF's input, uint8 RGB (H, W, 3), from an image; None: the image itself. A function of a
            module that needs few others, as every process of the CRF imports it.
    """

    plain: MaskFolder
    refined: MaskFolder | None = None
    crf_image: ImageFilter | None = None

    @property
    def final(self) -> MaskFolder:
        """The refined masks, if there are any."""
        return self.refined or self.plain

    @property
    def content(self) -> str:
        """As `StampedFolder`."""
        return self.final.content

    def is_done(self, image_id: str) -> bool:
        """Whether the image has all its masks."""
        return self.plain.is_done(image_id) and self.final.is_done(image_id)

    def write(self, image_id: str, mask: np.ndarray) -> None:
        """Writes an image's labels without CRF, uint8 (H, W)."""
        self.plain.write(image_id, mask)

    def __str__(self) -> str:
        return str(self.final)


def open_mask_folders(
    run: RunFolder, images: ImageSet, method: str, config: SegmentConfig, weights: dict[str, Any], runtime: Runtime,
    crf: bool, overwrite: bool, crf_image: ImageFilter | None = None,
) -> MaskFolders:  # fmt: skip
    """The folders that the masks of a list go to.

    Args:
        method: the network's, for the stamps.
        weights: what identifies the network, see `common.nets.load.load_network`.
        crf: whether the masks are also refined.
        overwrite: whether existing masks are deleted.
        crf_image: see `MaskFolders`.

    Raises:
        UserError: they hold masks of other settings, or the CRF's package or device is missing.
    """
    settings = {**weights, **config.settings(), "precision": runtime.precision}
    if crf:
        crf_backend(config.crf)
    stamp = stamp_of(MASKS, method, settings, images)
    plain = MaskFolder(run.segs(images.list_name), stamp, runtime, overwrite)
    if not crf:
        return MaskFolders(plain)
    # Backend and device are left out: labels do not depend on them.
    of_crf = {key: value for key, value in vars(config.crf).items() if key not in ("backend", "device")}
    settings |= {"crf": {**of_crf, "image": crf_image.__name__ if crf_image else ""}}
    stamp = stamp_of(MASKS, method, settings, images)
    return MaskFolders(plain, MaskFolder(run.refined_segs(images.list_name), stamp, runtime, overwrite), crf_image)


def infer_logits(
    logits_of: Callable[[Tensor], Tensor],
    images: ImageFiles,
    config: SegmentConfig,
    runtime: Runtime,
    is_done: Callable[[str], bool],
    transform: Transform = eval_transform,
    failures: Failures | None = None,
) -> Iterator[tuple[list[int], Iterable[Tensor]]]:
    """Yields ``(indices, bands)`` for this process's share of an image set; see `image_batches`.

    The bands are logits (B, C, h, W) from top to bottom: one of the whole images, or, of an image with a longer side
    than ``infer.tile``, one for each row of its tiles, which bounds the memory.

    Args:
        logits_of: maps images (b, 3, H, W) to logits (b, C, h, w), background first.
        transform: turns a decoded RGB image into network input of the same size.
    """
    batches = image_batches(
        images, config.batch_size, config.num_workers, runtime, is_done, "masks", transform, failures, config.tile
    )
    for indices, pixels in batches:
        if isinstance(pixels, Image.Image):
            yield indices, _bands(logits_of, pixels, config, runtime, transform)
            continue
        with runtime.autocast():
            logits = segment_logits(logits_of, pixels, pixels.shape[-2:], config)
        yield indices, [logits]


def _bands(
    logits_of: Callable[[Tensor], Tensor], image: Image.Image, config: SegmentConfig, runtime: Runtime,
    transform: Transform,
) -> Iterator[Tensor]:  # fmt: skip
    """Yields the logits (1, C, h, W) of an image that is cut into tiles."""

    def of_tile(tile: Tile) -> Tensor:
        pixels = single(transform(image.crop(tile.box)), runtime)
        with runtime.autocast():
            return segment_logits(logits_of, pixels, pixels.shape[-2:], config)[0]

    rows = tile_rows(image.height, image.width, config.tile, config.overlap)
    yield from (band[None] for band in blended_bands(rows, of_tile, image.width))


def mask_of(logits: Tensor) -> np.ndarray:
    """The labels of the largest logits: (B, C, H, W) to uint8 (B, H, W)."""
    return logits.max(dim=1).indices.to(torch.uint8).cpu().numpy()  # the first of equal ones; argmax is 3 times slower


def joined(bands: Sequence[np.ndarray]) -> np.ndarray:
    """Bands (..., h, W), from top to bottom, as one (..., H, W)."""
    return bands[0] if len(bands) == 1 else np.concatenate(bands, axis=-2)


def write_masks(
    logits_of: Callable[[Tensor], Tensor],
    images: ImageSet,
    config: SegmentConfig,
    runtime: Runtime,
    folders: MaskFolders,
    transform: Transform = eval_transform,
) -> int:
    """Writes the missing masks of an image set; the work is shared by all processes.

    Args:
        logits_of: as `infer_logits`, like ``transform``.

    Returns:
        The number of images worked on, by all processes together.
    """

    def masks() -> Iterator[tuple[int, np.ndarray]]:
        # A GPU computes the CRF from within this process: one image fills it.
        workers = usable_workers(config.num_workers) if folders.refined and config.crf.device == "cpu" else 0
        with WorkerPool(workers, "CRF") as pool:
            for indices, bands in infer_logits(logits_of, images, config, runtime, folders.is_done, transform):
                found: list[np.ndarray] = []
                probabilities: list[np.ndarray] = []
                for logits in bands:
                    found.append(mask_of(logits))
                    if folders.refined:
                        probabilities.append(logits.softmax(dim=1).cpu().numpy())
                yield from zip(indices, joined(found), strict=True)
                if folders.refined:
                    _submit_crf(
                        pool, images, indices, joined(probabilities), config, folders.refined, folders.crf_image
                    )

    return write_each(images, folders, masks(), runtime.processes)


def _submit_crf(
    pool: WorkerPool, images: ImageSet, indices: list[int], probabilities: np.ndarray, config: SegmentConfig,
    refined: MaskFolder, crf_image: ImageFilter | None,
) -> None:  # fmt: skip
    """Queues the CRF of a batch's images without a refined mask; probabilities are (B, C, H, W)."""
    for index, own in zip(indices, probabilities, strict=True):
        image_id = images.ids[index]
        if not refined.is_done(image_id):
            job = images.file(index), refined.file(image_id), own, config.crf, crf_image
            pool.submit(refine_mask, *job)


def report_masks(
    folders: MaskFolders, images: ImageSet, run: RunFolder, runtime: Runtime, num_workers: int
) -> dict[str, Evaluation]:
    """Reports the scores of the masks before and after the CRF, ``eval_png.*`` and ``eval_png_crf.*``.

    Returns:
        The evaluations by these names; empty if the images have no true masks.
    """
    results = {}
    stems = {MASK_SCORES: folders.plain} | ({REFINED_MASK_SCORES: folders.refined} if folders.refined else {})
    for stem, folder in stems.items():
        result = score_folder(
            folder.path, "png", images.config, images.list_name, EvalConfig(), runtime.processes, num_workers
        )
        report(result, run, stem, runtime.processes)
        if isinstance(result, NotScored):
            break
        results[stem] = result
    return results


def submit_masks(folders: MaskFolders, images: ImageSet, run: RunFolder, comp: str) -> None:
    """Writes the run's archive for VOC's server, ``<comp>_<list>.tar``, of the final masks, and prints its path.

    Raises:
        UserError: as `write_submission`.
    """
    masks, archive = folders.final.path, run.path / f"{comp}_{folders.final.path.name}.tar"
    write_submission(masks, dict(zip(images.ids, images.images, strict=True)), archive, comp)
    print(f"{archive}: {len(set(images.ids))} masks for VOC's server")
