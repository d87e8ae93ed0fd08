"""Computes DiG's golden cases with the project's code."""

import fnmatch
import functools
import json
import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from common.data.augment import train_transform
from common.nets.attention import MapRequest
from common.nets.mctformer import Output
from common.nets.options import ViTConfig
from common.seeds.cam import max_norm, multi_view
from common.train.optim import has_weight_decay
from common.train.schedule import OptimConfig, cosine_lr, scaled_lr
from common.train.step import weighted_sum
from methods.dig.config import LossConfig, UNetConfig
from methods.dig.diffusion import GaussianDiffusion, schedule_buffers
from methods.dig.lfca import RELEASED_FEATURES
from methods.dig.losses import LOSS_TERMS, DiGStep, classification_loss, distillation, loss_terms, prediction_loss
from methods.dig.model import TOP, DiG, Fused
from methods.dig.unet import UNet
from tests.golden.harness import Case, Results, built, runner
from tests.golden.runners_eval import swept_voc

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
    config = UNetConfig(description["dim"], description["dim_mults"])
    unet = built(lambda: UNet(config, description["channels"]), seed)
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


@functools.lru_cache(maxsize=2)
def _filled(recipe: str, has_lfca: bool, seed: int) -> DiG:
    description = json.loads(recipe)
    config = ViTConfig(arch=description["arch"], drop_path=description["drop_path"])
    model = built(lambda: DiG(config, description["num_classes"], RELEASED_FEATURES if has_lfca else None), seed)
    if has_lfca:
        model.LFCA0.drop_path.drop_prob = model.LFCA1.drop_path.drop_prob = description["lfca_drop_path"]
    return model


def filled(description: dict[str, Any], seed: int, mode: str, has_lfca: bool = True) -> DiG:
    """The classifier of a manifest's description with the recipe's weights, made once for cases that share it."""
    assert description["drop"] == 0
    model = _filled(json.dumps(description, sort_keys=True), has_lfca, seed)
    model.zero_grad(set_to_none=True)
    return model.train(mode == "train")


def joined(features: list[np.ndarray]) -> Tensor:
    """X (B, K*F, h, w) of the features at each timestep."""
    return torch.cat([torch.as_tensor(part) for part in features], dim=1)


@runner("dig", "vit")
@torch.no_grad()
def vit(case: Case) -> Results:
    """All maps of the network that inference uses, its tokens and queries, and images of other sizes."""
    model, x = filled(case.model, case.entry["weights_seed"], case.params["mode"], has_lfca=False), case.input("x")
    embedded, grid = model.embed(x)
    tokens, attention = model.run_blocks(embedded, grid, range(model.depth), MapRequest())
    out, (_, queries) = model.output(tokens, grid, attention), model.training_pass(x, query_rows=len(x))
    features = tokens[:, model.num_tokens :].transpose(1, 2).unflatten(2, grid)
    found = {
        **{name: getattr(out, name) for name in ("cls", "pcls", "cams", "fcams", "mtatt", "rcams")},
        "attn_rows": out.patch_attention, "feat_sub": features, "head_raw": model.head(features), "tok_sub": tokens,
        "q_last_sub": queries[0], "q_prev_sub": queries[1], "maxnorm_rcams": max_norm(out.rcams),
        "attn_layer0_headmean_rows": model.run_blocks(embedded, grid, range(1), MapRequest())[1],
    }  # fmt: skip
    results = {(role, None): value for role, value in found.items()}
    for image in case.input("other_sizes"):
        out, (height, width) = model(image), image.shape[-2:]
        found = {
            **{name: getattr(out, name) for name in ("cls", "pcls", "rcams")},
            "pos": model.positions(height, width),
        }
        results |= {(f"other_{name}", f"{height}x{width}"): value for name, value in found.items()}
    return results


@runner("dig", "lfca")
@torch.no_grad()
def lfca(case: Case) -> Results:
    """Both LFCA with what is inside them, and the diffusion logits and CAMs."""
    model, seen, hooks = filled(case.model, case.entry["weights_seed"], case.params["mode"]), {}, []
    x, features = case.input("x"), joined(case.input("features"))
    grid = tuple(side // PATCH for side in x.shape[-2:])

    def watch(module: nn.Module, *places: tuple[str, Any]) -> None:
        def note(_: nn.Module, inputs: tuple, outputs: Any) -> None:
            seen.update({place: pick(inputs, outputs) for place, pick in places})

        hooks.append(module.register_forward_hook(note))

    for name in ("LFCA0", "LFCA1"):
        module = model.get_submodule(name)
        watch(module.diff_init, (("kv_sub", name), lambda _, outputs: outputs))
        watch(module.mlp_c0, (("o_c_sub", name), lambda inputs, _: inputs[0]))
        watch(module.mlp_p0, (("o_p_sub", name), lambda inputs, _: inputs[0]))
        watch(module, (("xc", name), lambda _, out: out[0]), (("xp_sub", name), lambda _, out: out[1]))
    watch(model.diff_head_p, (("cam_diff_raw", None), lambda _, outputs: outputs))
    try:
        out, queries = model.training_pass(x, query_rows=len(x))
        fused = model.fuse(features, queries, grid)
    finally:
        for hook in hooks:
            hook.remove()
    found = {"cls": out.cls, "pcls": out.pcls, **fused_outputs(fused)}
    return {**seen, **{(role, None): value for role, value in found.items()}}


def fused_outputs(fused: Fused) -> dict[str, Tensor]:
    """Under the reference's names."""
    return {"diff_cls": fused.cls, "diff_pcls": fused.pcls, "cam_diff": fused.cams}


@runner("dig", "coco")
@torch.no_grad()
def coco(case: Case) -> Results:
    """Another number of classes, temperature and alpha."""
    model, params = filled(case.model, case.entry["weights_seed"], case.params["mode"]), case.params
    x, (labels,) = case.input("x"), tensors(case, "label")
    plain, (_, queries) = model(x), model.training_pass(x, query_rows=len(x))
    fused = model.fuse(joined(case.input("features")), queries, tuple(plain.cams.shape[-2:]))
    found = {
        "cls": plain.cls, "pcls": plain.pcls, "diff_cls": fused.cls, "diff_pcls": fused.pcls,
        "rcams_sub": plain.rcams, "cam_diff_sub": fused.cams,
        "loss_cls": classification_loss(plain.cls, plain.pcls, labels),
        "loss_pred_diff": prediction_loss(plain, fused, labels, params["T"], params["alpha"]),
    }  # fmt: skip
    return {(role, None): value for role, value in found.items()}


def loss_config(params: dict[str, Any]) -> LossConfig:
    """The losses of a manifest's parameters."""
    return LossConfig(params["W"], params["T"], params["alpha"], params["late_losses_after_epoch"] + 1)


def named_losses(terms: dict[str, Tensor], config: LossConfig) -> dict[str, Tensor]:
    """Weighted, under the reference's names."""
    names = {
        "loss_cls": "cls", "loss_pred_diff": "pred_diff", "loss_cam_consistency": "cam",
        "loss_cls_diff": "cls_denoised", "loss_rcams_consistency": "rcam",
    }  # fmt: skip
    weights = dict(zip(LOSS_TERMS, config.weights, strict=True))
    return {role: weights[name] * terms[name] for role, name in names.items()}


class Given(Output):
    """An output whose refined CAMs are given instead of made from attention."""

    def __init__(self, cls: Tensor, pcls: Tensor, cams: Tensor, rcams: Tensor) -> None:
        super().__init__(cls, pcls, cams, None, 1.0, cams.shape[1])
        self._rcams = rcams

    @property
    def rcams(self) -> Tensor:
        """As given."""
        return self._rcams


@runner("dig", "losses")
def losses(case: Case) -> Results:
    """The losses of given logits and maps, with gradients, and the pooling."""
    params = case.params
    names = ("cls", "pcls", "cams", "rcams", "cls2", "pcls2", "rcams2", "diff_cls", "diff_pcls", "cam_diff")
    given = {name: tensor.requires_grad_() for name, tensor in zip(names, tensors(case, *names), strict=True)}
    labels, pool_in = tensors(case, "label", "pool_in")
    plain = Given(given["cls"], given["pcls"], given["cams"], given["rcams"])
    denoised = Given(given["cls2"], given["pcls2"], given["cams"], given["rcams2"])
    fused = Fused(given["diff_cls"], given["diff_pcls"], given["cam_diff"])
    config = loss_config(params)
    terms = loss_terms(plain, fused, denoised, labels, config, params["epoch"])
    total = weighted_sum(terms, dict(zip(LOSS_TERMS, config.weights, strict=True)))
    total.backward()
    model = DiG(ViTConfig(embed_dim=48, depth=1), labels.shape[1], None)
    assert params["top_k"] == TOP
    found = {
        "kd_cls": distillation(plain.cls, fused.cls, params["T"]),
        "kd_pcls": distillation(plain.pcls, fused.pcls, params["T"]),
        **named_losses(terms, config), "total": total, "maxnorm_cams": max_norm(plain.cams),
        "pool_out": model.pool(pool_in),
        **{f"grad_{name}": tensor.grad for name, tensor in given.items()},
    }  # fmt: skip
    return {(role, None): value for role, value in found.items()}


@runner("dig", "step")
def step(case: Case) -> Results:
    """Whole training steps at some epochs, whose diffusion passes and outputs are the same."""
    params, seed = case.params, case.entry["weights_seed"]
    model = filled(case.model["vit"], seed, params["mode"])
    diffusion = GaussianDiffusion(filled_unet(case.model["unet"], seed))
    images, (labels,) = case.input("x"), tensors(case, "label")
    *timesteps, denoised = params["timesteps"]
    assert denoised == params["denoise_timestep"]
    noise = [torch.as_tensor(draw) for draw in case.input("noise")]
    grid = tuple(side // PATCH for side in images.shape[-2:])
    guidance = diffusion.guide(images, grid, timesteps, denoised, noise, max_rows=1)
    module, seen, results = DiGStep(model, loss_config(params)), {}, {}
    record(model, "training_pass", seen)
    record(model, "fuse", seen)
    try:
        for epoch in params["epochs"]:
            seen.clear()
            model.zero_grad(set_to_none=True)
            found = module(images, labels, epoch, *guidance)
            found["total"].backward()
            norms = gradient_norms(model, case.stored["grad_names"])
            found = {"total": found["total"], **named_losses(found, module.config), **norms}
            results |= {(role, epoch): value for role, value in found.items()}
    finally:
        del model.training_pass, model.fuse
    (plain, _), (second, _) = seen["training_pass"]  # of the last epoch, which has all maps
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    found = {
        **{f"o_{name}": getattr(plain, name) for name in ("cls", "pcls", "rcams", "cams")},
        **{f"o_{name}": value for name, value in fused_outputs(seen["fuse"][0]).items()},
        **{f"o2_{name}": getattr(second, name) for name in ("cls", "pcls", "rcams")},
        "img_denoised_sub": guidance.denoised, "feat_sub": guidance.features.unflatten(1, (len(timesteps), -1)),
        "no_grad_params": np.array(without),
        "lr_scaled": np.array(scaled_lr(optim_config(params), params["batch_size"])),
    }  # fmt: skip
    return results | {(role, None): value for role, value in found.items()}


def record(model: nn.Module, name: str, seen: dict[str, list]) -> None:
    """Keeps what a method returns from now on, until the attribute is deleted."""
    method = getattr(model, name)

    def recorded(*args: Any, **kwargs: Any) -> Any:
        seen.setdefault(name, []).append(method(*args, **kwargs))
        return seen[name][-1]

    setattr(model, name, recorded)


def gradient_norms(model: nn.Module, names: np.ndarray) -> dict[str, Any]:
    """L2 norms by parameter, and of all together.

    In float32 as the stored ones, whose rounding is 0.5 % for the largest parameters (47 million values).
    """
    norms = {name: p.grad.norm() for name, p in model.named_parameters() if p.grad is not None}
    return {
        "grad_norms": torch.stack([norms[str(name)] for name in names]),
        "grad_total_norm": torch.stack(list(norms.values())).norm(),
    }


@runner("dig", "infer")
@torch.no_grad()
def infer(case: Case) -> Results:
    """Maps of image and mirror image, and the seeds, by the network without LFCA."""
    model, results = filled(case.model, case.entry["weights_seed"], case.params["mode"], has_lfca=False), {}
    maps_of = model.foreground_maps("rcams")
    for number, (image, label) in enumerate(zip(case.input("images"), case.input("labels"), strict=True)):
        seeds, classes = multi_view(maps_of)(image, label).maps[0], label[0].nonzero().flatten().tolist()
        found = {"rcams": maps_of(image).cams, "rcams_flip": maps_of(image.flip(-1)).cams, "classes": np.array(classes)}
        results |= {(role, number): value for role, value in found.items()}
        results |= {("map", (number, key)): seed for key, seed in zip(classes, seeds, strict=True)}
    return results


def optim_config(params: dict[str, Any]) -> OptimConfig:
    """The optimiser's configuration, as far as a manifest's parameters name it."""
    names = {"base_lr": "lr"} | {
        name: name for name in ("base_batch", "warmup_epochs", "warmup_lr", "min_lr", "weight_decay")
    }
    return OptimConfig(**{ours: params[name] for name, ours in names.items() if name in params})


@runner("dig", "schedule")
def schedule(case: Case) -> Results:
    """Learning rates by epoch, and the optimiser's groups."""
    params, config, results = case.params, optim_config(case.params), {}
    for listed in params["cases"]:
        peak = scaled_lr(config, listed["batch_size"])
        rates = [cosine_lr(epoch, listed["epochs"], peak, config) for epoch in range(listed["epochs_listed"])]
        results["lr", listed["name"]] = np.array(rates)
    with torch.device("meta"):  # names and shapes are all that counts
        model = DiG(ViTConfig(arch=case.model["arch"]), case.model["num_classes"])
    groups: tuple[dict, dict] = {}, {}
    for name, parameter in model.named_parameters():
        groups[has_weight_decay(name, parameter)][name] = parameter.numel()
    names = [str(name) for name in case.stored["no_decay_names"]]
    assert set(names) == set(groups[0])
    found = {
        "wd": np.array([0.0, config.weight_decay]), "n_params_group": np.array([len(group) for group in groups]),
        "numel_group": np.array([sum(group.values()) for group in groups]), "no_decay_names": np.array(names),
        "betas": np.array(config.betas), "eps": np.array(config.eps),
    }  # fmt: skip
    return results | {(role, None): value for role, value in found.items()}


@runner("dig", "aug")
def aug(case: Case) -> Results:
    """Crops that the training transform takes, by seed and image size."""
    params, rows = case.params, []
    crop = train_transform(224, params["scale"]).transforms[0]
    np.testing.assert_allclose(crop.ratio, params["ratio"])
    for seed, width, height in case.input("rows")[:, :3].tolist():
        random.seed(seed)
        rows.append([seed, width, height, *crop.get_params(Image.new("L", (width, height)), crop.scale, crop.ratio)])
    return {("crops", None): np.array(rows)}


@runner("dig", "eval")
def evaluation(case: Case) -> Results:
    """mIoU, precision and recall at every threshold, and the classes' IoU at one of them."""
    params, images = case.params, case.entry["inputs"]["images"]
    seeds = [
        (dict(zip(classes, case.make(image["maps"]), strict=True)), case.make(image["gt"]))
        for image, classes in zip(images, params["classes"], strict=True)
    ]
    scores, thresholds = swept_voc(seeds, params["thresholds"]).scores, sorted(params["thresholds"])
    found = {
        "miou": scores.miou, "mP": scores.mean_precision, "mR": scores.mean_recall,
        "iou_at_040": scores.iou[thresholds.index(params["iou_threshold"])],
    }  # fmt: skip
    return {(role, None): value for role, value in found.items()}
