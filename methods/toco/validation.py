"""ToCo's validation: mIoU of CAMs, auxiliary CAMs and the segmentation, F1 of the image labels."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common.data.dataset import LabelledImages
from common.data.loader import start_worker
from common.data.transforms import eval_transform
from common.masks.network import resized
from common.run.device import Runtime
from common.run.pool import usable_workers
from common.run.processes import say_once
from common.run.progress import progress
from common.score.counts import ConfusionCounts
from common.score.evaluate import Scoring
from common.score.mask_meaning import labels_by_id
from common.score.options import EvalConfig
from methods.toco.cams import multi_scale_cams
from methods.toco.config import ToCoConfig
from methods.toco.labels import cam_to_label
from methods.toco.model import ToCo

PREDICTIONS = ("cam", "cam_aux", "seg")


class _ResizedImages(Dataset):
    """``(index, image)``: whole images resized to size x size, ImageNet-normalised."""

    def __init__(self, images: LabelledImages, size: int) -> None:
        self.images = images
        self.size = size

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        image = eval_transform(self.images.load_image(index))
        return index, resized(image[None], (self.size, self.size))[0]


@torch.inference_mode()
def predict(
    model: ToCo, images: Tensor, labels: Tensor, sizes: Sequence[tuple[int, int]], scales: Sequence[float], bkg: float
) -> tuple[list[dict[str, np.ndarray]], Tensor]:
    """Label maps by the CAM, by the auxiliary CAM (both limited to the image's labels) and by the segmentation.

    Args:
        images: (B, 3, S, S), ImageNet-normalised.
        labels: multi-hot (B, C).
        sizes: (H, W) of each image's maps.
        scales: of the CAMs.
        bkg: CAM values up to this are background.

    Returns:
        For each image {name of `PREDICTIONS`: uint8 (H, W)}; class logits (B, C).
    """
    features = model.encoder(images)
    maps = multi_scale_cams(model.cams, images, scales, model.raw_cams(features))  # 2 x B C S S
    logits = model.decoder(features.patches).float()  # B C+1 h w
    found = []
    for index, size in enumerate(sizes):
        own = slice(index, index + 1)
        by_cams = [cam_to_label(resized(cams[own], size), labels[own], bkg) for cams in maps]
        predicted = [*by_cams, resized(logits[own], size).argmax(1)]
        arrays = (prediction[0].to(torch.uint8).cpu().numpy() for prediction in predicted)
        found.append(dict(zip(PREDICTIONS, arrays, strict=True)))
    return found, model.logits(features)[0]


def f1_score(logits: Tensor, labels: Tensor) -> Tensor:
    """F1 of logits (B, C) above 0 against labels (B, C), for each image: (B,); 0 where nothing is right."""
    chosen = logits > 0
    hits = (chosen & (labels > 0)).sum(1)
    return 2 * hits / (chosen.sum(1) + (labels > 0).sum(1)).clamp(min=1)


def mean_iou(counts: ConfusionCounts) -> float:
    """Mean IoU in percent over the classes that occur in the truth, as by ToCo's evaluator."""
    return float(counts.scores().iou[counts.matrix.sum(axis=1) > 0].mean())


def validate(model: ToCo, images: LabelledImages, config: ToCoConfig, runtime: Runtime) -> dict[str, float]:
    """Scores the weights on images with masks; the work is shared by all processes.

    Returns:
        ``val_f1`` and, for each of `PREDICTIONS`, ``val_NAME``: mIoU; in percent.

    Raises:
        UserError: masks are missing, damaged, or differ from their images in size.
    """
    train = config.train
    processes = runtime.processes
    named = labels_by_id(images.ids, images.labels)
    scoring = {name: Scoring("png", images.classes, EvalConfig(), image_labels=named) for name in PREDICTIONS}
    share = processes.shard(range(len(images)))
    batches = [share[start : start + train.val_batch] for start in range(0, len(share), train.val_batch)]
    loader = DataLoader(
        _ResizedImages(images, train.val_size), batch_sampler=batches, generator=torch.Generator(),
        num_workers=usable_workers(min(config.runtime.num_workers, len(batches))), worker_init_fn=start_worker,
    )  # fmt: skip
    scores = []
    for indices, pixels in progress(loader, "validation", processes.is_main):
        masks = [images.load_mask(index) for index in indices.tolist()]
        pixels, labels = runtime.to_device(pixels, torch.from_numpy(images.labels[indices.numpy()]))
        sizes = [mask.shape for mask in masks]
        with runtime.autocast():
            found, logits = predict(model, pixels, labels, sizes, config.loss.cam_scales, config.labels.bkg)
        scores.append(f1_score(logits, labels).cpu())
        for index, mask, predictions in zip(indices.tolist(), masks, found, strict=True):
            for name, prediction in predictions.items():
                scoring[name].add(images.ids[index], prediction, mask)
    f1 = torch.cat([part for parts in processes.gather_objects(scores) for part in parts]).double().mean()
    results = {name: own.result(images.ids, processes) for name, own in scoring.items()}
    for finding in results[PREDICTIONS[0]].findings:
        say_once(f"warning: {finding}")
    miou = {f"val_{name}": mean_iou(result.confusion) for name, result in results.items()}
    return {"val_f1": 100 * float(f1), **miou}
