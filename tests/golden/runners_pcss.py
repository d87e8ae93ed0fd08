"""Computes PCSS's golden cases with the project's code."""

import functools

import numpy as np
import timm
import torch

from common.nets.attention import MapRequest
from common.nets.options import ViTConfig
from common.run.device import Runtime
from common.run.options import RuntimeConfig
from common.run.processes import Processes
from common.seeds.cam import max_norm, multi_view
from common.train.schedule import OptimConfig, cosine_lr, scaled_lr
from methods.pcss.config import FIMConfig, LossConfig
from methods.pcss.fim import block_losses, wanted_labels
from methods.pcss.frequency import block_filters, filtered, half_plane, removed_blocks, spectrum
from methods.pcss.importance import FrequencyImportance
from methods.pcss.losses import PCSSStep
from methods.pcss.model import PCSS
from tests.golden.harness import Case, Results, built, runner
from tests.golden.runners_eval import swept_voc
from tests.golden.weights import tensor_for


@functools.lru_cache(maxsize=2)
def filled(arch: str, num_classes: int, drop_path: float, seed: int) -> PCSS:
    """The network with the recipe's weights."""
    return built(lambda: PCSS(ViTConfig(arch=arch, drop_path=drop_path), num_classes), seed)


def network(case: Case) -> PCSS:
    """The network of a case, in its mode, without gradients."""
    model = filled(case.model["arch"], case.model["num_classes"], case.model["drop_path"], case.entry["weights_seed"])
    model.zero_grad(set_to_none=True)
    return model.train(case.params["mode"] == "train")


@runner("pcss", "forward")
@torch.no_grad()
def forward(case: Case) -> Results:
    """All maps, and those of the pass with mixed magnitudes."""
    model, params, x = network(case), case.params, case.input("x")
    index, perm = params["mpc_idx"], params["perm"]
    embedded, grid = model.embed(x)
    out, tokens = model(x), {}
    now = embedded
    for number in range(model.depth):
        now, attention = model.run_blocks(now, grid, range(number, number + 1), MapRequest())
        tokens[number] = now
        if number == 0:
            first_attention = attention
    middle = model.patch_map(tokens[index], grid)
    found = {
        **{name: getattr(out, name) for name in ("cls", "pcls", "cams", "rcams", "mtatt")},
        "mct_cam": out.fcams, "patch_attn_sum_sub": out.patch_attention, "x_patch7_sub": middle,
        "maxnorm_cams": max_norm(out.cams), "maxnorm_rcams": max_norm(out.rcams),
        "block0_in_tok": embedded, "block0_attn_headmean": first_attention,
        **{f"block{number}_out_tok": value for number, value in tokens.items()},
        "ret_att_equals_rcams": np.array(float((model.foreground_maps("rcams")(x).cams - out.rcams).abs().max())),
    }  # fmt: skip
    if perm is not None:
        step = PCSSStep(
            model, LossConfig(mpc_idx=index, mpc_org_ratio=params["mpc_org_ratio"]), importance_of(case, x.shape[-1])
        )
        magnitude = step._mixed_magnitude(middle, torch.tensor(perm))
        entering = model.mixed(tokens[index], grid, magnitude)
        _, early = model.run_blocks(embedded, grid, range(index + 1), MapRequest())
        last, attention = model.run_blocks(entering, grid, range(index + 1, model.depth), MapRequest(), early)
        mixed = model.output(last, grid, attention)
        found |= {
            "mag1_sub": whole_plane(spectrum(middle).abs(), grid[1]),
            "mag_merged_sub": whole_plane(magnitude, grid[1]),
            f"block{index + 1}_in_mixed_tok": entering,
            **{f"mix_{name}": getattr(mixed, name) for name in ("cls", "pcls", "cams", "rcams")},
            "mix_maxnorm_rcams": max_norm(mixed.rcams),
        }
    return {(role, None): value for role, value in found.items()}


def whole_plane(half: torch.Tensor, width: int) -> torch.Tensor:
    """A symmetric half-plane (..., h, w//2+1) as the whole plane (..., h, w) in FFT order."""
    mirrored = half.flip(-2).roll(1, -2).flip(-1)[..., half.shape[-1] * 2 - width - 1 : -1]
    return torch.cat([half, mirrored], dim=-1)


@runner("pcss", "geometry")
@torch.no_grad()
def geometry(case: Case) -> Results:
    """Image sizes of all kinds, with their position embeddings."""
    model, results = network(case), {}
    for number, x in enumerate(case.input("images")):
        out = model(x)
        found = {name: getattr(out, name) for name in ("cls", "pcls", "cams", "rcams")}
        found["pos"] = model.positions(*x.shape[-2:])
        results |= {(role, number): value for role, value in found.items()}
    return results


def importance_of(case: Case, size: int, **config: int) -> FrequencyImportance:
    """Masks before any round, for images of so many pixels a side."""
    return FrequencyImportance(case.model["num_classes"], size, FIMConfig(**config))


@runner("pcss", "loss")
def loss(case: Case) -> Results:
    """One training step: losses, every pass's logits, gradients."""
    model, params = network(case), case.params
    x, labels = case.input("x"), torch.as_tensor(case.input("label")).float()
    importance = importance_of(
        case, x.shape[-1], start_epoch=params["fim_start_epo"], interval=params["fim_interval_epo"]
    )
    if case.entry["inputs"]["fim_loss_matrix"] is not None:
        importance.begin_round(params["fim_round_epoch"])
        importance.add(torch.as_tensor(case.input("fim_loss_matrix")), 0)
        importance.finish_round()
    config = LossConfig(
        weights=params["W"], mpc_idx=params["mpc_idx"], mpc_org_ratio=params["mpc_org_ratio"],
        mpc_cam_start_epoch=params["mpc_cam_start_epo"],
    )  # fmt: skip
    step, passes, read_heads = PCSSStep(model, config, importance), [], model.read_heads

    def record(tokens: torch.Tensor, grid: tuple[int, int]) -> tuple:
        passes.append(read_heads(tokens, grid))
        return passes[-1]

    model.read_heads = record
    try:
        losses = step(x, labels, params["epoch"], torch.tensor(params["perm"]))
    finally:
        del model.read_heads
    losses["total"].backward()
    weight_suppressed, weight_mixed = config.weights  # the reference's terms are weighted
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    norms = [
        float("nan") if grads[str(n)] is None else grads[str(n)].double().norm() for n in case.stored["grad_names"]
    ]
    every = torch.stack([grad.double().norm() for grad in grads.values() if grad is not None])
    found = {
        "loss_cls": losses["cls"], "loss_cls_hif_reduced": losses["cls_suppressed"],
        "loss_cam_hif_reduced": weight_suppressed * losses["cam_suppressed"], "loss_cls_merge": losses["cls_mixed"],
        "loss_cam_merge": weight_mixed * losses["cam_mixed"], "total": losses["total"],
        "grad_norms": np.array(norms), "grad_norm_all": every.norm(), "grad_head_bias": grads["head.bias"],
        "grad_cls_token_sub": grads["cls_token"], "norm_weight_grad_is_none": np.array(grads["norm.weight"] is None),
        "hif_mask_sub": importance.current, "hif_reduced_img_sub": step.suppress(x, labels),
    }  # fmt: skip
    results = {(role, None): value for role, value in found.items()}
    for number, (cls, pcls, _) in enumerate(passes):
        results |= {("pass_cls", number): cls, ("pass_pcls", number): pcls}
    return results


@runner("pcss", "fim")
@torch.no_grad()
def fim(case: Case) -> Results:
    """Filters, filtered images, and the class losses of one round fed in batches."""
    model, params = network(case), case.params
    grid, block = params["grid"], params["block"]
    size, classes = grid * block, case.model["num_classes"]
    masks = torch.ones(grid, grid // 2 + 1, grid, grid, dtype=torch.bool)
    for row, column in np.ndindex(*masks.shape[:2]):
        for place in removed_blocks(row, column, grid):
            masks[row, column][place] = False
    filters = block_filters(size, block)
    assert len(filters.weights) == len({tuple(mask.flatten().tolist()) for mask in masks.flatten(0, 1)})
    images = case.input("images")
    wide = masks.float().repeat_interleave(block, 2).repeat_interleave(block, 3)
    reduced = [
        filtered(spectrum(images[0][0]), half_plane(wide[row, column]), (size, size))
        for row, column in case.stored["filtered_rc"]
    ]
    importance = FrequencyImportance(classes, size, FIMConfig(images_per_class=params["fim_ipc"], block=block))
    importance.begin_round(params["epoch"])
    runtime, need, lefts = (
        Runtime(RuntimeConfig(device="cpu"), Processes()),
        torch.full((classes,), params["fim_ipc"]),
        [],
    )
    for x, label in zip(images, case.input("labels"), strict=True):
        wanted = wanted_labels(torch.as_tensor(label), need)
        used = wanted.any(1)  # the images of a round, as `FIM` plans it
        importance.add(block_losses(model, x[used], wanted[used], filters, 32, runtime), len(x))
        need = need - wanted.sum(0)
        lefts.append(need)
    found = {
        "masks": masks, "filtered_img0_sub": torch.stack(reduced), "loss_mat": importance.totals,
        "need_left": torch.stack(lefts), "returns": np.array([bool((left == 0).all()) for left in lefts]),
        "classes_seen": importance.totals.amax((1, 2)) > 0,
    }  # fmt: skip
    return {(role, None): value for role, value in found.items()}


@runner("pcss", "hifm")
def hifm(case: Case) -> Results:
    """Rounds of given class losses: masks with their fallback, running maxima, logged ratios."""
    params, results = case.params, {}
    rounds = case.input("loss_mats")
    size = rounds[0].shape[-1] * FIMConfig().block
    importance = importance_of(case, size, start_epoch=params["fim_start_epo"], interval=params["fim_interval_epo"])
    for epoch, losses in zip(params["rounds"], rounds, strict=True):
        assert importance.is_due_after(epoch, max(params["rounds"]) + 2)
        importance.begin_round(epoch)
        importance.add(torch.as_tensor(losses), 1)
        ratios = importance.finish_round()
        mask = importance.current
        found = {
            "mask": mask, "maxloss": importance.max_loss, "mask_min": mask.amin((1, 2)), "mask_max": mask.amax((1, 2)),
            "scalars": torch.stack([ratios["min_ratio"].mean(), ratios["max_ratio"].mean()]),
        }  # fmt: skip
        results |= {(role, epoch): value.clone() for role, value in found.items()}
    return results


@runner("pcss", "infer")
@torch.no_grad()
def infer(case: Case) -> Results:
    """Seeds of one image by the shared multi-view inference."""
    model, label = network(case), torch.as_tensor(case.input("label"))
    maps = multi_view(model.foreground_maps("rcams"))(case.input("x"), label).maps[0]
    keys = label[0].nonzero().flatten()
    return {("keys", None): keys, **{("cam", int(key)): cam for key, cam in zip(keys, maps, strict=True)}}


@runner("pcss", "pretrain")
def pretrain(case: Case) -> Results:
    """Tokens and positions after loading an ImageNet checkpoint."""
    recipe = case.entry["inputs"]["checkpoint"]
    with torch.device("meta"):  # names and shapes are all that counts
        source = timm.create_model(recipe["tensor_for"].removeprefix("timm:"), num_classes=recipe["num_classes"])
    checkpoint = {name: tensor_for(name, tuple(v.shape), recipe["seed"]) for name, v in source.state_dict().items()}
    model = PCSS(ViTConfig(arch=case.model["arch"]), case.model["num_classes"])
    model.load_imagenet(checkpoint)
    return {("cls_token_sub", None): model.cls_token, ("pos_embed_sub", None): model.pos_embed}


@runner("pcss", "lr")
def lr(case: Case) -> Results:
    """Learning rates by epoch."""
    params = case.params
    config = OptimConfig(
        lr=params["base_lr"], base_batch=params["base_batch"], min_lr=params["min_lr"], warmup_lr=params["warmup_lr"],
        warmup_epochs=params["warmup_epochs"],
    )  # fmt: skip
    peak = scaled_lr(config, params["batch_size"])
    rates = [cosine_lr(epoch, params["epochs"], peak, config) for epoch in range(params["epochs"])]
    return {("lr_by_epoch", None): np.array(rates)}


@runner("pcss", "eval")
def evaluation(case: Case) -> Results:
    """mIoU at every threshold, through files, and what a search that stops early would have found."""
    params = case.params
    images = [
        (dict(zip(case.make(image["keys"]).tolist(), case.make(image["maps"]), strict=True)), case.make(image["gt"]))
        for image in case.entry["inputs"]["images"]
    ]
    swept = swept_voc(images, params["thresholds"], early_stop=True)
    found = {
        "miou": swept.scores.miou, "iou_at_0.40": swept.scores.iou[params["iou_threshold_index"]],
        "early_stop_best": np.array([swept.early_stop.miou, swept.early_stop.threshold]),
    }  # fmt: skip
    return {(role, None): value for role, value in found.items()}
