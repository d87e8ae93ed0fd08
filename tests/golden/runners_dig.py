"""Computes DiG's golden cases with the project's code."""

import fnmatch
import functools
import json
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.dig.diffusion import GaussianDiffusion, schedule_buffers
from methods.dig.unet import UNet, UNetConfig
from tests.golden.harness import Case, Results, runner
from tests.golden.weights import fill

PATCH = 16  # side of a patch of the classifier, whose grid the feature taps are resized to


def change_filled(model: nn.Module, rules: list[dict[str, str]]) -> None:
    """Applies a manifest's ``after_fill``: parameters whose name matches become the value of an expression in ``p``."""
    for rule in rules:
        found = {name: p for name, p in model.named_parameters() if fnmatch.fnmatchcase(name, rule["names"])}
        assert found, f"no parameter is named {rule['names']}"
        with torch.no_grad():
            for p in found.values():
                p.copy_(eval(rule["set_to"], {"np": np, "torch": torch, "F": F, "p": p}))  # this repository's test data


@functools.lru_cache(maxsize=1)
def _filled_unet(recipe: str, seed: int) -> UNet:
    description = json.loads(recipe)
    unet = UNet(UNetConfig(description["dim"], description["dim_mults"]), description["channels"])
    fill(unet, seed)
    change_filled(unet, description.get("after_fill", []))
    return unet


def filled_unet(description: dict[str, Any], seed: int) -> UNet:
    """The U-Net of a manifest's description with the recipe's weights, made once for cases that share it."""
    unet = _filled_unet(json.dumps(description, sort_keys=True), seed)
    unet.zero_grad(set_to_none=True)
    return unet


def tensors(case: Case, *names: str) -> tuple[Tensor, ...]:
    """Inputs of a case."""
    return tuple(torch.as_tensor(case.input(name)) for name in names)


@runner("dig", "unet")
@torch.no_grad()
def unet(case: Case) -> Results:
    """The network's v and taps, and single modules."""
    model = filled_unet(case.model, case.entry["weights_seed"]).train(case.params["mode"] == "train")
    x, t, times = tensors(case, "x", "t", "temb_t")
    assert t.tolist() == case.params["t"]
    out = model.outputs(x, t, (x.shape[-2] // PATCH, x.shape[-1] // PATCH))
    taps = out.features.split(model.config.tap_channels, dim=1)
    temb = model.time_mlp(times)
    found = {
        "v": out.v,
        **{f"feat{number}": tap for number, tap in enumerate(taps)},
        "temb_sinus": model.time_mlp[0](times),
        "temb": temb,
    }
    for name, module in (("lin", "downs.0.2"), ("att", "mid_attn"), ("down", "downs.1.3"), ("up", "ups.0.3")):
        found[f"{name}_out"] = model.get_submodule(module)(*tensors(case, f"{name}_in"))
    rows = slice(*case.params["res_temb_rows"])
    found["res_out"] = model.get_submodule("ups.0.0")(*tensors(case, "res_in"), temb[rows])
    return {(role, None): value for role, value in found.items()}


@runner("dig", "diffusion")
def diffusion(case: Case) -> Results:
    """Schedule, conversions, one training step with gradient norms, and DDIM sampling."""
    params = case.params
    assert (params["schedule"], params["objective"], params["ddim_eta"]) == ("sigmoid", "pred_v", 0)
    model = GaussianDiffusion(filled_unet(case.model, case.entry["weights_seed"]), params["timesteps"])
    found = {f"buf_{name}": model.get_buffer(name) for name in schedule_buffers(params["timesteps"])}
    found |= conversions(model, *tensors(case, "x0", "t", "eps"))
    found |= training_step(model, *tensors(case, "train_img", "train_t", "train_noise"), case.stored["grad_names"])
    (z,) = tensors(case, "ddim_z")
    assert z.shape[-2:] == (params["ddim_image_size"],) * 2
    found["ddim_out"] = model.sample(z, params["ddim_steps"])
    found["ddim_times"] = model.ddim_timesteps(params["ddim_steps"])
    found["ddim_times150"] = model.ddim_timesteps(params["ddim_steps_full"])
    return {(role, None): value for role, value in found.items()}


def conversions(model: GaussianDiffusion, x0: Tensor, t: Tensor, eps: Tensor) -> dict[str, Tensor]:
    """What the schedule makes of images and noise; noise stands in for v and for x0 where the manifest says so."""
    xt = model.q_sample(x0, t, eps)
    mean, variance, log_variance = model.posterior(x0, xt, t)
    return {
        "xt": xt,
        "v": model.v_target(x0, t, eps),
        "x0_from_v": model.x0_from_v(xt, t, eps),
        "eps_from_x0": model.noise_from_x0(xt, t, eps),
        "x0_from_eps": model.x0_from_noise(xt, t, eps),
        "post_mean": mean,
        "post_var": variance,
        "post_logvar": log_variance,
    }


def training_step(
    model: GaussianDiffusion, images: Tensor, t: Tensor, noise: Tensor, names: np.ndarray
) -> dict[str, Any]:
    """Prediction, losses and gradient norms."""
    with torch.no_grad():
        predicted = model.model(model.q_sample(2 * images - 1, t, noise), t)
        errors = model.errors(images, t, noise)
    loss = model(images, t, noise)
    loss.backward()
    norms = {name: parameter.grad.double().norm() for name, parameter in model.model.named_parameters()}
    found = {
        "train_pred_v": predicted,
        "train_loss_per_sample": errors,
        "train_loss": loss,
        "grad_norms": torch.stack([norms[str(name)] for name in names]),
        "grad_total_norm": torch.stack(list(norms.values())).norm(),
    }
    model.zero_grad(set_to_none=True)
    return found
