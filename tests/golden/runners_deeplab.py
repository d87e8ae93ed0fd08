"""Computes DeepLab's golden cases with the project's code."""

import functools
import json
import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from common.crf.dense import dense_crf
from common.crf.options import CRFConfig
from common.masks.losses import resized_targets
from common.masks.options import CAFFE_MEAN_BGR, MaskViewConfig
from common.masks.scores import segmentation_scores
from common.masks.views import MaskViews, draw_crop, input_transform
from common.score.counts import ConfusionCounts
from common.train.course import Position
from methods.deeplab.config import DeepLabModelConfig, DeepLabOptimConfig
from methods.deeplab.crf_image import clean_image, wrapped_image
from methods.deeplab.losses import DeepLabStep
from methods.deeplab.model import DeepLab
from tests.golden.harness import Case, Results, built, runner
from tests.golden.runners_dig import change_filled, record


@functools.lru_cache(maxsize=1)
def _filled(recipe: str, seed: int) -> DeepLab:
    description = json.loads(recipe)
    assert description["arch"] == "deeplabv2_resnet101_msc"
    config = DeepLabModelConfig(scales=description["scales"])
    model = built(lambda: DeepLab(config, description["num_classes"]), seed)
    change_filled(model, description["after_fill"])
    return model


def network(case: Case) -> DeepLab:
    """The network of a case, made once for those that share it."""
    model = _filled(json.dumps(case.model, sort_keys=True), case.entry["weights_seed"])
    model.zero_grad(set_to_none=True)
    return model.train(case.params["mode"] == "train")


@runner("deeplab", "train")
def train(case: Case) -> Results:
    """The four outputs, their labels and losses, gradient norms; the norms' parameters get gradients for once."""
    params, model = case.params, network(case)
    assert params["freeze_bn"] and params["ignore"] == 255
    x, labels = case.input("x"), torch.as_tensor(case.input("label"))
    step, parameters = DeepLabStep(model), dict(model.named_parameters())
    frozen = [parameter.requires_grad_() for parameter in parameters.values() if not parameter.requires_grad]
    seen: dict[str, list] = {}
    record(model, "outputs", seen)
    try:
        losses = step(x, labels)
    finally:
        del model.outputs
    (outputs,) = seen["outputs"]
    total = losses["total"] / params["iter_size"]
    total.backward()
    for parameter in frozen:
        parameter.requires_grad_(False)
    results = {("logit", number): logits for number, logits in enumerate(outputs)}
    results |= {
        ("label_resized", number): resized_targets(labels, logits.shape[-2:]) for number, logits in enumerate(outputs)
    }
    norms = [parameters[str(name)].grad.double().norm() for name in case.stored["grad_names"]]
    found = {
        "losses": torch.stack([losses[name] for name in step.terms]),
        "backward_value": total,
        "grad_norms": torch.stack(norms),
    }
    return results | {(role, None): value for role, value in found.items()}


@runner("deeplab", "test")
@torch.no_grad()
def test(case: Case) -> Results:
    """The largest logits of the scales, probabilities and labels at the image's size."""
    x = case.input("x")
    logits = network(case)(x)
    probabilities = F.interpolate(logits, x.shape[-2:], mode="bilinear").softmax(1)
    found = {"logit": logits, "prob": probabilities, "pred": probabilities.argmax(1)}
    return {(role, None): value for role, value in found.items()}


@runner("deeplab", "lr")
def lr(case: Case) -> Results:
    """The learning rate of the three groups in a step, and after the last one."""
    params = case.params
    base, *heads = params["lrs"]
    config = DeepLabOptimConfig(
        lr=base, head_scale=heads[0] / base, head_bias_scale=heads[1] / base, power=params["power"],
        lr_decay=params["step_size"],
    )  # fmt: skip
    scales = np.array([1.0, config.head_scale, config.head_bias_scale])
    steps = [*(case.input("iteration") - 1), params["iter_max"]]
    *used, after = (config.rate(Position(total_steps=int(step)), params["iter_max"]) * scales for step in steps)
    return {("lr_used_f64", None): np.stack(used), ("lr_after_last_f64", None): after}


@runner("deeplab", "label_resize")
def label_resize(case: Case) -> Results:
    """Labels at the sizes of the logits."""
    labels = torch.as_tensor(case.input("label"))
    return {("to", side): resized_targets(labels, (side, side)) for side in case.params["sizes"]}


@runner("deeplab", "aug")
def aug(case: Case) -> Results:
    """Draws and views of images whose channels are in the order BGR; and a whole image."""
    params = case.params
    config = MaskViewConfig(crop_size=params["crop"], scales=params["scales"])
    assert tuple(params["mean_bgr"]) == CAFFE_MEAN_BGR and params["ignore"] == 255
    images = [np.ascontiguousarray(image[..., ::-1]) for image in case.input("images")]
    results: Results = {}
    for number, (image, labels, seed) in enumerate(
        zip(images, case.input("labels"), params["python_seeds"], strict=True)
    ):
        random.seed(seed)
        crop = draw_crop(*labels.shape, config)
        pixels, cropped = MaskViews(config).crop(image, labels, crop)
        found = {
            "scale": np.float32(crop.scale), "resized": crop.size, "start": crop.start, "flip": crop.flip,
            "out": pixels, "out_label": cropped,
        }  # fmt: skip
        results |= {(role, number): value for role, value in found.items()}
    whole = input_transform(config.input)(Image.fromarray(images[params["test_image"]]))
    return results | {("test_out", None): whole}


@runner("deeplab", "crf")
def crf(case: Case) -> Results:
    """The CRF on the wrapped image, and on the image itself."""
    params = case.params
    near, far = params["crf"]["gaussian"], params["crf"]["bilateral"]
    config = CRFConfig(
        iterations=params["crf"]["iterations"], gaussian_sxy=near["sxy"], gaussian_compat=near["compat"],
        bilateral_sxy=far["sxy"], bilateral_srgb=far["srgb"], bilateral_compat=far["compat"],
    )  # fmt: skip
    assert tuple(params["mean_bgr"]) == CAFFE_MEAN_BGR
    results: Results = {}
    for number, recipe in enumerate(case.entry["inputs"]["images"]):
        image = np.ascontiguousarray(case.make(recipe["image_bgr"])[..., ::-1])
        logits = torch.as_tensor(case.make(recipe["logit"]))[None]
        probabilities = F.interpolate(logits, image.shape[:2], mode="bilinear").softmax(1)[0].numpy()
        marginals = dense_crf(wrapped_image(image), probabilities, config)
        found = {
            "image_wrapped": wrapped_image(image),
            "label_before": probabilities.argmax(0),
            "label_after": marginals.argmax(0),
            "Q": marginals,
            "label_after_clean_image": dense_crf(clean_image(image), probabilities, config).argmax(0),
        }
        results |= {(role, number): value for role, value in found.items()}
    return results


@runner("deeplab", "metric")
def metric(case: Case) -> Results:
    """The scores of label maps."""
    counts = ConfusionCounts(case.params["num_classes"])
    for recipe in case.entry["inputs"]["images"]:
        counts.add(case.make(recipe["pred"]), case.make(recipe["gt"]))
    scores = segmentation_scores(counts)
    found = {
        "pixel_acc_f64": scores.pixel_accuracy, "mean_acc_f64": scores.mean_accuracy,
        "fwiou_f64": scores.frequency_weighted_iou, "miou_f64": scores.mean_iou, "class_iou_f64": scores.class_iou,
    }  # fmt: skip
    return {(role, None): value for role, value in found.items()}
