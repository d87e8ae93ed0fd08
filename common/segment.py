"""Masks of a segmentation network for a whole image list: flips and scales, dense CRF, files, scores.

Logits are never stored: an image's CRF starts when its logits are there, in a pool of processes beside the network.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.config import at_least, option, section
from common.crf import CRFConfig, crf_backend
from common.data.dataset import ImageSet, class_names
from common.data.masks import write_mask
from common.data.transforms import eval_transform
from common.evaluate import EvalConfig, Evaluation, FilePredictions, MaskFiles, evaluate
from common.infer import SCALES, StampedFolder, image_batches
from common.mask_crf import ImageFilter, refine_mask
from common.pool import WorkerPool
from common.run import RunFolder
from common.runtime import Runtime, usable_workers
from common.scoring import has_masks
from common.seeds import BackgroundWriter
from common.submission import write_submission


@dataclass
class SegmentViews:
    """How the logits of flips and scales become one."""

    resize: int = option(
        0, "Side of the square that images are brought to, which the scales multiply; 0: their own size.",
        rule=at_least(0),
    )  # fmt: skip
    scales: list[float] = option([1.0, 1.5, 1.25], "Image scales.", rule=SCALES)
    flip: str = option(
        "sum", "How the mirror image's logits join those of its scale; none: no mirror image.",
        choices=("sum", "max", "none"),
    )  # fmt: skip
    merge: str = option("max", "How the scales join.", choices=("max", "sum"))


@dataclass
class SegmentConfig(SegmentViews):
    """Inference of masks; the defaults are ToCo's for VOC."""

    image_list: str = option("val", "Images to segment.", flag=("--infer_list", "--infer_set"))
    batch_size: int = option(4, "Images of one size that go through the network together.", rule=at_least(1))
    num_workers: int = option(
        8, "Image-loader worker processes, and as many of --crf.", flag="--num_workers", rule=at_least(0)
    )
    crf: CRFConfig = section(
        CRFConfig, gaussian_sxy=1.0, gaussian_compat=1.0, bilateral_sxy=121.0, bilateral_srgb=5.0, bilateral_compat=4.0
    )

    def settings(self) -> dict[str, Any]:
        """What the masks of a network depend on, without those of the CRF."""
        views = {name: getattr(self, name) for name in ("resize", "flip", "merge", "batch_size")}
        return {**views, "scales": list(self.scales)}


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
    total = None
    for scale in views.scales:
        view = images if scale == 1.0 else resized(images, (int(height * scale), int(width * scale)))
        logits = _view_logits(logits_of, view, size, views.flip)
        total = logits if total is None else _joined(total, logits, views.merge)
    return total


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


class MaskFolder(StampedFolder):
    """Where one inference writes its masks, ``<id>.png`` in the colours of VOC; knows which are done."""

    def __init__(self, path: Path, settings: dict[str, Any], runtime: Runtime, overwrite: bool = False) -> None:
        """Opens the folder; see `StampedFolder`."""
        super().__init__(path, settings, ("png",), runtime, overwrite, "masks", "another --name")

    def file(self, image_id: str) -> Path:
        """Where an image's mask is, or will be."""
        return self.path / f"{image_id}.png"

    def is_done(self, image_id: str) -> bool:
        """Whether the image's mask is there."""
        return self.file(image_id).is_file()


@dataclass(frozen=True)
class MaskFolders:
    """The folders of one list.

    Attributes:
        plain: the largest logit's labels, ``segs/<list>/``.
        refined: those after the CRF, ``segs_crf/<list>/``, if there is one.
        crf_image: what the CRF sees of an image, uint8 RGB (H, W, 3), if not the image itself; a function of a module
            that needs few others, as every process of the CRF imports it.
    """

    plain: MaskFolder
    refined: MaskFolder | None = None
    crf_image: ImageFilter | None = None

    @property
    def final(self) -> MaskFolder:
        """The refined masks, if there are any."""
        return self.refined or self.plain

    def is_done(self, image_id: str) -> bool:
        """Whether the image needs no work any more."""
        return self.plain.is_done(image_id) and self.final.is_done(image_id)


def open_mask_folders(
    run: RunFolder, list_name: str, config: SegmentConfig, weights: dict[str, Any], runtime: Runtime, crf: bool,
    overwrite: bool, crf_image: ImageFilter | None = None,
) -> MaskFolders:  # fmt: skip
    """The folders that the masks of a list go to.

    Args:
        weights: what identifies the network, see `common.infer_script.load_network`.
        crf: whether they are refined.
        overwrite: whether masks that are there are deleted.
        crf_image: see `MaskFolders`.

    Raises:
        UserError: they hold masks of other settings, or what the CRF needs is not there.
    """
    name, settings = Path(list_name).stem, {**weights, **config.settings(), "precision": runtime.precision}
    if crf:
        crf_backend(config.crf)
    plain = MaskFolder(run.path / "segs" / name, settings, runtime, overwrite)
    if not crf:
        return MaskFolders(plain)
    # What computes them is left out: labels do not depend on it.
    of_crf = {key: value for key, value in vars(config.crf).items() if key not in ("backend", "device")}
    settings |= {"crf": {**of_crf, "image": crf_image.__name__ if crf_image else ""}}
    return MaskFolders(plain, MaskFolder(run.path / "segs_crf" / name, settings, runtime, overwrite), crf_image)


def write_masks(
    logits_of: Callable[[Tensor], Tensor],
    images: ImageSet,
    config: SegmentConfig,
    runtime: Runtime,
    folders: MaskFolders,
    transform: Callable[[Image.Image], Tensor] = eval_transform,
) -> int:
    """Writes the masks of an image set that are not there yet; the work is shared by all processes.

    Args:
        logits_of: maps images (b, 3, H, W) to logits (b, C, h, w), background first.
        transform: maps a decoded RGB image to what the network takes, of the same size.

    Returns:
        How many images were worked on, by all processes together.
    """
    refined, count = folders.refined, 0
    # A GPU computes the CRF from within this process: one image fills it.
    workers = usable_workers(config.num_workers) if refined and config.crf.device == "cpu" else 0
    batches = image_batches(images, config.batch_size, config.num_workers, runtime, folders.is_done, "masks", transform)
    with BackgroundWriter() as writer, WorkerPool(workers, "CRF") as pool:
        for indices, pixels in batches:
            with runtime.autocast():
                logits = segment_logits(logits_of, pixels, pixels.shape[-2:], config)  # B C H W
            masks = logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
            probabilities = logits.softmax(dim=1).cpu().numpy() if refined else None
            for position, index in enumerate(indices):
                image_id = images.ids[index]
                writer.submit(functools.partial(write_mask, folders.plain.file(image_id), masks[position]))
                if refined and not refined.is_done(image_id):
                    job = images.images[index], refined.file(image_id), probabilities[position], config.crf
                    pool.submit(refine_mask, *job, folders.crf_image)
            count += len(indices)
    return sum(runtime.processes.gather_objects(count))


def score_masks(folder: MaskFolder, images: ImageSet, runtime: Runtime, num_workers: int) -> Evaluation:
    """Scores the masks of an image set; the work is shared by all processes.

    Raises:
        UserError: as `evaluate`.
    """
    truth = MaskFiles(images.config, images.list_name)
    return evaluate(
        truth.ids, FilePredictions(folder.path, "png"), truth, class_names(images.config), EvalConfig(), "png",
        images.list_name, str(folder.path), processes=runtime.processes, num_workers=num_workers,
    )  # fmt: skip


def report_masks(
    folders: MaskFolders, images: ImageSet, run: RunFolder, runtime: Runtime, num_workers: int
) -> dict[str, Evaluation]:
    """Prints the mIoU of the masks before and after the CRF and writes ``eval_png.*`` and ``eval_png_crf.*``.

    Returns:
        The evaluations by those names; none if the images have no true masks, which is said.
    """
    if not has_masks(images):
        if runtime.processes.is_main:
            print(f"not scored: no masks of {images.list_name!r}, such as {images.mask_path(images.ids[0])}")
        return {}
    results = {}
    stems = {"eval_png": folders.plain} | ({"eval_png_crf": folders.refined} if folders.refined else {})
    for stem, folder in stems.items():
        results[stem] = result = score_masks(folder, images, runtime, num_workers)
        if runtime.processes.is_main:
            result.write(run.path, stem)
            print(
                f"{folder.path}: {result.best.miou:.2f} mIoU over {result.images} images; per class: "
                f"{run.path / stem}.json, .csv"
            )
    return results


def submit_masks(folders: MaskFolders, images: ImageSet, run: RunFolder, comp: str) -> None:
    """Writes the run's archive for VOC's server, ``<comp>_<list>.tar``, of the final masks, and says so.

    Raises:
        UserError: as `write_submission`.
    """
    masks, archive = folders.final.path, run.path / f"{comp}_{folders.final.path.name}.tar"
    write_submission(masks, dict(zip(images.ids, images.images, strict=True)), archive, comp)
    print(f"{archive}: {len(set(images.ids))} masks for VOC's server")
