"""Computes the golden cases of CRT's object localisation with the project's code."""

import numpy as np
import torch
import torch.nn.functional as F

from common.nets.options import ResNetConfig, ViTConfig
from methods.crt.boxes import cam_box
from methods.crt.localization import TOP, Located, judge
from methods.crt.model import STRIDES
from methods.crt.wsol_config import WSOLModelConfig
from methods.crt.wsol_losses import WSOLStep
from methods.crt.wsol_model import WSOL, class_cams
from tests.golden.harness import Case, Results, built, runner
from tests.golden.runners_crt_train import reference_name


@runner("crt", "wsol")
def wsol(case: Case) -> Results:
    """Maps, losses and gradients of both networks, and what the DeiT says in evaluation."""
    cnn, deit = case.model["cnn"], case.model["deit"]
    weights = case.params["loss_weights"]
    assert tuple(cnn["strides"]) == STRIDES and deit["head"] == "conv3x3" and weights[:2] == [1, 1]
    config = WSOLModelConfig(ResNetConfig(cnn["arch"]), ViTConfig(deit["arch"], drop_path=deit["drop_path"]))
    model = built(lambda: WSOL(config, deit["num_classes"]), case.entry["weights_seed"], reference_name)
    x = case.input("x")
    labels = F.one_hot(torch.as_tensor(case.input("target")), deit["num_classes"])
    terms = WSOLStep(model.train())(x, labels, weights[2], len(x))
    terms["total"].backward()
    with torch.no_grad():
        map_cnn, map_deit = model(x)
    eval_logits, eval_cam = class_cams(model.eval().deit, x)
    found = {
        "loss1": terms["cls_deit"], "loss2": terms["cls_cnn"], "loss3": terms["consistency"], "total": terms["total"],
        "logits_deit": terms["logits_deit"], "logits_cnn": terms["logits_cnn"], "map_deit": map_deit,
        "map_cnn": map_cnn, "eval_logits": eval_logits, "eval_cam": eval_cam,
    }  # fmt: skip
    for branch in ("cnn", "deit"):
        grads = {
            reference_name(name): value.grad
            for name, value in model.named_parameters()
            if name.startswith(f"{branch}.")
        }
        names = case.stored[f"grad_names_{branch}"]
        norms = [np.nan if grads[name] is None else float(grads[name].norm()) for name in names]
        found[f"grad_{branch}"] = np.array(norms)
    return {(role, None): value for role, value in found.items()}


@runner("crt", "wsol_boxes")
def boxes(case: Case) -> Results:
    """Boxes of maps at several thresholds, and what is right about each image."""
    side, threshold = case.params["crop"], case.params["cam_thr"]
    index, maps, logits, labels, truth = (
        case.input(name) for name in ("cam_index", "cam_values", "logits", "label", "gt_box")
    )
    map_of = {tuple(place): cam for place, cam in zip(index.tolist(), maps, strict=True)}
    results: Results = {
        ("boxes_thr", value): [cam_box(map_of[image, label], side, value) for image, label in enumerate(labels)]
        for value in case.params["thresholds"]
    }
    ranked, known, verdicts = [], [], []
    for image, label in enumerate(labels):
        top = np.argsort(-logits[image], kind="stable")[:TOP]
        top_boxes = np.stack([cam_box(map_of[image, of_class], side, threshold) for of_class in top])
        known.append(cam_box(map_of[image, label], side, threshold))
        ranked.append(np.concatenate([top[:, None], top_boxes], axis=1))
        verdicts.append(judge(Located(top, top_boxes, label, known[-1], truth[image][None])))
    outcomes = {"right": "right", "class": "cls_wrong"} | {name: name for name in ("multi", "part", "more", "wrong")}
    found = {
        "est_box": known, "top5_class_box": ranked, "iou_f64": [verdict.iou for verdict in verdicts],
        "loc_gt_known": [verdict.gt_known for verdict in verdicts],
        **{
            name: [getattr(verdict, name) for verdict in verdicts]
            for name in ("cls_top1", "cls_top5", "loc_top1", "loc_top5")
        },
        **{role: [verdict.outcome == name for verdict in verdicts] for name, role in outcomes.items()},
    }  # fmt: skip
    return results | {(role, None): np.array(values) for role, values in found.items()}
