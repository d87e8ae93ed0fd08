"""Computes ToCo's golden cases of labels, local crops and training views with the project's code."""

import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.data.classes import IGNORE_LABEL
from methods.toco.config import LabelConfig
from methods.toco.crops import local_crops
from methods.toco.labels import (
    affinity_mask,
    cam_to_label,
    refined_label,
    roi_mask,
    truncated,
    uncertain_label,
    valid_cams,
)
from methods.toco.par import PAR
from methods.toco.views import crop_at, draw_position, rescaled
from tests.golden.harness import Case, Results, runner


def label_config(case: Case) -> LabelConfig:
    """The thresholds and the refinement of a case."""
    params = case.params
    assert params["ignore_index"] == IGNORE_LABEL
    return LabelConfig(
        params["high_thre"], params["low_thre"], params["bkg_thre"], params["par"]["num_iter"],
        params["par"]["dilations"],
    )  # fmt: skip


def shuffled_ranks(crops: int, seed: int, counts: Tensor) -> Tensor:
    """The reference's choice (B, crops): the first of a random permutation of each image's candidates."""
    torch.manual_seed(seed)
    return torch.stack([torch.randperm(int(count))[:crops] for count in counts])


def resized(maps: Tensor, size: int) -> Tensor:
    """Bilinear to size x size."""
    return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)


@runner("toco", "labels")
def labels(case: Case) -> Results:
    """Labels of all kinds, refined masks, and local crops."""
    params, config = case.params, label_config(case)
    x, cams, label, boxes = (torch.as_tensor(case.input(name)) for name in ("x", "cams", "label", "img_box"))
    size, small = tuple(x.shape[-2:]), resized(cams, params["small"])
    small_label = uncertain_label(small, label, boxes, config, size)
    stricter = LabelConfig(**{**vars(config), "high": params["high_thre_alt"]})
    par = PAR(resized(truncated(x) / 255, params["par_image"]), config.par_dilations, config.par_iterations)
    found = {
        "valid_cam": valid_cams(cams, label),
        "pseudo_label": uncertain_label(cams, label, boxes, config, size),
        "eval_label": cam_to_label(cams, label, config.bkg),
        "roi_mask": roi_mask(cams, label, config),
        "pseudo_label_small": small_label,
        "aff_mask": affinity_mask(small_label),
        "refined": refined_label(x, cams, label, boxes, config),
        "refined_065": refined_label(x, cams, label, boxes, stricter),
        "denorm_u8": truncated(x),
        "par_out": par(resized(cams[:, :4], params["par_mask"]).softmax(1)),
        **crops_of(case, x, roi_mask(cams, label, config)),
    }
    return {(role, None): value for role, value in found.items()}


def crops_of(case: Case, images: Tensor, roi: Tensor) -> dict[str, Tensor]:
    """The reference's choice of crops."""
    params, crops = case.params, case.params["crop_num"]
    with torch.random.fork_rng(devices=[]):
        found = local_crops(
            images, roi, lambda counts: shuffled_ranks(crops, params["torch_manual_seed"], counts),
            params["crop_size"], crops,
        )  # fmt: skip
    means = found.images.mean((1, 2, 3)).view(crops, -1)
    return {"crop_topleft": found.topleft, "flags": found.flags, "crop_mean": means}


@runner("toco", "data")
def data(case: Case) -> Results:
    """The scaled image, the random place of the crop, the crop and its box."""
    assert case.params["mean_rgb"] == [0, 0, 0]
    results: Results = {}
    for number, (pixels, params) in enumerate(zip(case.input("images"), case.params["cases"], strict=True)):
        scaled = rescaled(Image.fromarray(pixels), params["scale"])
        random.seed(params["python_and_numpy_seed"])
        np.random.seed(params["python_and_numpy_seed"])  # noqa: NPY002 - the generator that the case was drawn from
        position = draw_position(scaled, params["crop_size"])
        crop, box = crop_at(scaled, position, params["crop_size"])
        found = {"rescaled": scaled, "pos": position, "crop": crop, "box": box}
        results |= {(role, number): np.array(value) for role, value in found.items()}
    return results
