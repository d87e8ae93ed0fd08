"""Computes ToCo's golden inference: masks, dense CRF, seeds of the segmentation, validation."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.crf.dense import dense_crf
from common.crf.options import CRFConfig
from common.data.transforms import eval_transform
from common.masks.network import segment_logits
from common.masks.options import SegmentViews
from common.score.counts import ConfusionCounts
from methods.toco.cams import seed_maps
from methods.toco.config import ToCoInferConfig
from methods.toco.validation import mean_iou, predict
from tests.golden.harness import Case, Results, runner
from tests.golden.runners_toco import network


def crf_config(case: Case) -> CRFConfig:
    """The CRF's parameters."""
    crf = case.params["crf"]
    near, far = crf["gaussian"], crf["bilateral"]
    return CRFConfig(
        iterations=crf["iterations"], gaussian_sxy=near["sxy"], gaussian_compat=near["compat"],
        bilateral_sxy=far["sxy"], bilateral_srgb=far["srgb"], bilateral_compat=far["compat"],
    )  # fmt: skip


def counted(prediction: np.ndarray, gt: np.ndarray, num_labels: int) -> ConfusionCounts:
    """The confusion of one image."""
    counts = ConfusionCounts(num_labels)
    counts.add(prediction.astype(np.uint8), gt)
    return counts


@runner("toco", "infer")
@torch.inference_mode()
def infer(case: Case) -> Results:
    """One image through every kind of inference, from its pixels to scores."""
    params, image, gt = case.params, case.input("image"), case.input("gt")[0].astype(np.uint8)
    label, pixels, size = case.input("label"), eval_transform(Image.fromarray(image))[None], image.shape[:2]
    model, num_labels = network(case), case.model["main"]["num_classes"]

    def masks(of: str, views: SegmentViews) -> tuple[Tensor, np.ndarray]:
        logits = segment_logits(network(case, of).segment, pixels, size, views)
        return logits, logits[0].argmax(0).numpy()

    logits, prediction = masks("main", SegmentViews(0, params["voc_scales"], "sum", "max"))
    coco, coco_prediction = masks("coco", SegmentViews(params["val_size"], params["coco_scales"], "max", "sum"))
    counts = counted(prediction, gt, num_labels)
    found = {
        "msc_seg": logits, "voc_pred": prediction, "voc_miou": mean_iou(counts) / 100,
        "voc_pacc": counts.matrix.diagonal().sum() / counts.matrix.sum(),
        "coco_msc_seg": coco, "coco_pred": coco_prediction,
    }  # fmt: skip
    for name, factor in (("crf", 1.0), ("crf_soft", params["soft_factor"])):
        marginals = dense_crf(image, (factor * logits)[0].softmax(0).numpy(), crf_config(case))
        found |= {f"{name}_prob": marginals, f"{name}_pred": marginals.argmax(0)}

    side = (params["val_size"], params["val_size"])
    square = torch.nn.functional.interpolate(pixels, side, mode="bilinear", align_corners=False)
    (by_name,), _ = predict(model, square, label, [size], params["val_scales"], params["bkg_thre"])
    found |= {"val_cam_label": by_name["cam"], "val_cam_aux_label": by_name["cam_aux"], "val_seg": by_name["seg"]}
    found["val_miou"] = np.array([mean_iou(counted(one, gt, num_labels)) / 100 for one in by_name.values()])

    keys = label[0].nonzero().flatten()
    seeds = ToCoInferConfig(seed_map="seg", seg_scales=params["segcam_scales"])
    found |= {"segcam_keys": keys, "segcam": seed_maps(model, seeds)(pixels, label).maps[0]}
    return {(role, None): value for role, value in found.items()}
