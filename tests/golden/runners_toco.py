"""Computes ToCo's golden cases of network, losses and training with the project's code."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.crf.lattice import Lattice, bilateral_features
from common.train.course import Position
from common.train.optim import set_lr
from methods.toco import step as toco_step
from methods.toco.cams import multi_scale_cams
from methods.toco.config import EnergyConfig, LabelConfig, LossConfig, ToCoModelConfig, ToCoOptimConfig
from methods.toco.crops import local_crops
from methods.toco.energy import energy_loss
from methods.toco.labels import affinity_mask, refined_label, roi_mask, uncertain_label
from methods.toco.losses import LossGroups, class_contrast, patch_contrast, segmentation_loss
from methods.toco.model import ToCo
from methods.toco.optim import toco_optimizer
from methods.toco.step import LOSS_TERMS, ToCoStep
from tests.golden.harness import Case, Results, built, cases, runner


@functools.lru_cache(maxsize=4)
def filled(arch: str, num_labels: int, aux_layer: int, seed: int) -> ToCo:
    """The network with the recipe's weights; not to be changed."""
    config = ToCoModelConfig(arch=arch, aux_layer=aux_layer, drop_path=0.0)
    return built(lambda: ToCo(config, num_labels - 1), seed)


def network(case: Case, which: str = "main") -> ToCo:
    """One of a case's networks."""
    of_case = case.model[which]
    return filled(of_case["backbone"], of_case["num_classes"], of_case["aux_layer"], case.entry["weights_seed"])


@runner("toco", "forward")
@torch.no_grad()
def forward(case: Case) -> Results:
    """Every output of three networks, for images of several sizes."""
    model, x = network(case), case.input("x")
    encoder, norms = model.encoder, []
    hooks = [
        block.register_forward_hook(lambda module, args, out: norms.append(out[0].flatten(1).norm(dim=1)))
        for block in encoder.blocks
    ]
    features = encoder(x)
    for hook in hooks:
        hook.remove()
    cams, cams_aux = multi_scale_cams(model.cams, x, case.params["cam_scales"])
    local = encoder(case.input("local")).cls_token
    found = {
        "tokens0": encoder.embed(x)[0], "block_norm": torch.stack(norms), "fmap": features.patches,
        "cls_token": features.cls_token, "x_aux": features.aux.flatten(2).mT,
        **dict(zip(("cam_raw", "cam_aux_raw"), model.cams(x), strict=True)), "ms_cam": cams, "ms_cam_aux": cams_aux,
        "local_cls_token": local, "local_proj": model.proj_head(local), "local_proj_t": model.proj_head_t(local),
    }  # fmt: skip
    passes = {"": ("main", "x"), "odd_": ("main", "odd"), "l_": ("main", "large"), "b_": ("base", "x_first")}
    passes["coco_"] = "coco", "x_first"
    for prefix, (which, images) in passes.items():
        of_case = network(case, which)
        features = of_case.encoder(case.input(images))
        outputs = *of_case.logits(features), of_case.decoder(features.patches)
        found |= {prefix + name: value for name, value in zip(("cls", "cls_aux", "seg"), outputs, strict=True)}
    return {(role, None): value for role, value in found.items()}


def energy_of(params: dict[str, Any]) -> EnergyConfig:
    """The energy loss of a case."""
    return EnergyConfig(params["weight"], params["sigma_rgb"], params["sigma_xy"], params["scale_factor"])


def labels_of(params: dict[str, Any]) -> LabelConfig:
    """The thresholds and PAR of a case."""
    par = params["par"]
    return LabelConfig(
        high=params["high_thre"], low=params["low_thre"], bkg=params["bkg_thre"], par_iterations=par["num_iter"],
        par_dilations=par["dilations"],
    )  # fmt: skip


@runner("toco", "losses")
def losses(case: Case) -> Results:
    """Every loss with its gradient, from given labels."""
    params = case.params
    groups = LossGroups(0)
    labels = torch.from_numpy(stored_elsewhere(case, "refined")).long()
    affinity = torch.from_numpy(stored_elsewhere(case, "aff_mask"))
    fmap = torch.from_numpy(case.input("fmap")).requires_grad_()
    logits = case.input("seg_logits").requires_grad_()
    image, values = case.input("bf_img"), torch.as_tensor(case.input("bf_in"))
    results: Results = {}
    ptc = patch_contrast(fmap, affinity, groups)
    seg = segmentation_loss(logits, labels, groups)
    reg = energy_loss(logits, case.input("x"), labels, torch.tensor(case.input("img_box")), energy_of(params["energy"]))
    reg_grad = torch.autograd.grad(reg, logits)[0]
    found = {
        "ptc": ptc, "ptc_grad": torch.autograd.grad(ptc, fmap)[0], "seg": seg,
        "seg_grad": torch.autograd.grad(seg, logits)[0], "reg": reg,
        "reg_grad": reg_grad, "reg_grad_norm": reg_grad.double().norm(),
        "bf_out": torch.stack([filtered(*pair, params["bf"]) for pair in zip(image, values, strict=True)]),
    }  # fmt: skip
    for temperature in params["ctc_temps"]:
        student = torch.as_tensor(case.input("student")).clone().requires_grad_()
        flags, teacher = torch.as_tensor(case.input("ctc_flags")), torch.as_tensor(case.input("teacher"))
        ctc = class_contrast(student, teacher, flags, temperature)
        results |= {("ctc", temperature): ctc, ("ctc_grad", temperature): torch.autograd.grad(ctc, student)[0]}
    return results | {(role, None): value for role, value in found.items()}


def filtered(image: Tensor, values: Tensor, params: dict[str, float]) -> Tensor:
    """Values (C, H, W) after the bilateral filter of an image (3, H, W)."""
    lattice = Lattice(bilateral_features(image, params["sigma_xy"], params["sigma_rgb"]))
    return lattice.filter(values.flatten(1).T.contiguous()).T.view_as(values)


def stored_elsewhere(case: Case, name: str) -> np.ndarray:
    """An input that is an output of another case of the folder."""
    recipe = case.entry["inputs"][name]
    (other,) = (found for found in cases(case.folder) if found.file == recipe["file"])
    return other.stored[recipe["stored"]]


@runner("toco", "lr")
def lr(case: Case) -> Results:
    """The learning rates of both published schedules."""
    params, results = case.params, {}
    config = ToCoOptimConfig(
        lr=params["lr"], head_scale=params["head_lr"] / params["lr"], warmup_steps=params["warmup_iter"],
        warmup_ratio=params["warmup_ratio"], power=params["power"],
    )  # fmt: skip
    for name in ("voc", "coco"):
        total = params[f"{name}_max_iter"]
        rates = [config.rate(Position(total_steps=int(step)), total) for step in case.input(f"{name}_step")]
        results[f"{name}_lr", None] = np.array([(rate, rate * config.head_scale) for rate in rates])
    return results


@runner("toco", "step")
def step(case: Case) -> Results:
    """Consecutive training steps, with all that they are made of."""
    params = case.params
    model = filled.__wrapped__(
        case.model["main"]["backbone"], case.model["main"]["num_classes"], case.model["main"]["aux_layer"],
        case.entry["weights_seed"],
    ).train()  # fmt: skip
    config = LossConfig(
        temperature=params["ctc_temp"], cam_scales=params["cam_scales"], compute_inactive=True,
        momentum=case.model["main"]["init_momentum"], group=len(case.input("x")),  # a process of the reference is one
    )  # fmt: skip
    labels_config, given = labels_of(params), params["optimizer"]
    training = ToCoStep(model, config, labels_config, energy_of(params["energy"]), params["crop_size"])
    optim = ToCoOptimConfig(
        lr=given["lr"], head_scale=given["head_lr"] / given["lr"], warmup_steps=given["warmup_iter"],
        warmup_ratio=given["warmup_ratio"], power=given["power"], weight_decay=given["weight_decay"],
        betas=given["betas"],
    )  # fmt: skip
    optimizer = toco_optimizer(model, optim)
    x, labels, boxes = case.input("x"), case.input("label"), torch.tensor(case.input("img_box"))
    second, source = case.input("view2"), case.input("local_source")
    results: Results = {}
    for number, of_step in enumerate(params["steps"]):
        drawn = lambda counts: torch.stack([torch.randperm(int(n))[: params["crop_num"]] for n in counts])  # noqa: E731
        model.update_teacher(config.momentum)
        weights = dict(zip(params["loss_order"], of_step["loss_weights"], strict=True))
        assert [config.segments(of_step["n_iter"]), config.contrasts(of_step["n_iter"])] == [
            weights["seg"] > 0, weights["ptc"] > 0,
        ]  # fmt: skip
        torch.manual_seed(of_step["torch_manual_seed"])
        with noted_cams() as cams:
            losses = training(x, second, source, boxes, labels, of_step["n_iter"], drawn)
        torch.manual_seed(of_step["torch_manual_seed"])
        watch = Watch(model, x, *cams, source, labels, boxes, labels_config, params, drawn)
        optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        set_lr(optimizer, optim.rate(Position(total_steps=of_step["optimizer_step"]), given["max_iter"]))
        optimizer.step()
        named, names = dict(model.named_parameters()), [str(name) for name in case.stored["grad_names"]]
        norms = [named[name].detach().double().norm() for name in [*names, *params["extra_param_names"]]]
        found = {
            "losses": torch.stack([losses[name].detach() for name in LOSS_TERMS]), "total": losses["total"],
            "grad_norms": torch.stack([named[name].grad.double().norm() for name in names]),
            "param_norms": torch.stack(norms), "lr": np.array([group["lr"] for group in optimizer.param_groups]),
            **watch.found,
        }  # fmt: skip
        results |= {(role, number): value for role, value in found.items()}
        if number == 0:
            results |= {(f"s0_{role}", None): value for role, value in watch.first(second).items()}
    return results


@contextlib.contextmanager
def noted_cams() -> Iterator[list[Tensor]]:
    """A list that a step's CAMs come into, the network's and the auxiliary ones."""
    cams: list[Tensor] = []

    def noted(*arguments: Any) -> tuple[Tensor, Tensor]:
        cams[:] = multi_scale_cams(*arguments)
        return tuple(cams)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toco_step, "multi_scale_cams", noted)
        yield cams


class Watch:
    """What a step makes of its CAMs, computed beside it."""

    def __init__(
        self, model: ToCo, x: Tensor, cams: Tensor, cams_aux: Tensor, source: Tensor, labels: Tensor, boxes: Tensor,
        config: LabelConfig, params: dict[str, Any], drawn: Any,
    ) -> None:  # fmt: skip
        self.cams, self.cams_aux = cams, cams_aux
        with torch.no_grad():
            roi = roi_mask(self.cams_aux, labels, config)
            self.crops = local_crops(source, roi, drawn, params["crop_size"])
            grid = tuple(size // model.encoder.patch_size for size in x.shape[-2:])
            small = F.interpolate(self.cams_aux, grid, mode="bilinear", align_corners=False)
            self.pseudo = uncertain_label(small, labels, boxes, config, x.shape[-2:])
            affinity = affinity_mask(self.pseudo)
            self.found = {
                "roi_counts": torch.stack([(roi == value).flatten(1).sum(1) for value in range(3)], 1),
                "crop_topleft": self.crops.topleft, "flags": self.crops.flags,
                "refined": refined_label(x, self.cams, labels, boxes, config),
                "aff_counts": torch.stack([(affinity == value).sum() for value in (0, 1, 255)]),
            }  # fmt: skip
        self.model, self.x = model, x

    @torch.no_grad()
    def first(self, second: Tensor) -> dict[str, Tensor]:
        """What is compared in the first step alone, whose learning rate is nearly zero: its weights are still there."""
        model = self.model
        tokens = model.encoder(torch.cat([self.x, second])).cls_token
        every = torch.cat([tokens, model.encoder(self.crops.images).cls_token])
        return {
            "out_t": model.proj_head_t(tokens), "out_s": model.proj_head(every), "pseudo_aux": self.pseudo,
            "cams": self.cams, "cams_aux": self.cams_aux,
        }  # fmt: skip
