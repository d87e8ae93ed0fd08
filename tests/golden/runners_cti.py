"""Computes CTI's golden cases with the project's code."""

import functools
from collections.abc import Iterator

import numpy as np
import timm
import torch
import torch.nn.functional as F

from common.nets.attention import MapRequest
from common.nets.options import ViTConfig
from common.nets.vit import resize_position_grid
from common.seeds.cam import multi_view
from common.train.optim import has_weight_decay
from common.train.schedule import OptimConfig, cosine_lr, scaled_lr
from methods.cti.config import LossConfig
from methods.cti.losses import CTIStep, background_maps
from methods.cti.memory import TokenMemory
from methods.cti.model import CTI
from tests.golden.harness import Case, Results, built, runner
from tests.golden.weights import tensor_for


@functools.lru_cache(maxsize=2)
def filled(arch: str, num_classes: int, drop_path: float, seed: int) -> CTI:
    """The network with the recipe's weights; COCO's has 82 M parameters, so it is made once."""
    return built(lambda: CTI(ViTConfig(arch=arch, drop_path=drop_path), num_classes), seed)


def network(case: Case) -> CTI:
    """The network of a case, in its mode, without gradients."""
    model = filled(case.model["arch"], case.model["num_classes"], case.model["drop_path"], case.entry["weights_seed"])
    model.zero_grad(set_to_none=True)
    return model.train(case.params["mode"] == "train")


@runner("cti", "init")
def init(case: Case) -> Results:
    """Names, shapes and values after loading an ImageNet checkpoint."""
    torch.manual_seed(0)
    arch, recipe = case.model["arch"], case.entry["inputs"]["checkpoint"]
    with torch.device("meta"):  # names and shapes are all that counts
        source = timm.create_model(recipe["tensor_for"].removeprefix("timm:"), num_classes=recipe["num_classes"])
    checkpoint = {name: tensor_for(name, tuple(v.shape), recipe["seed"]) for name, v in source.state_dict().items()}
    model = CTI(ViTConfig(arch=arch), case.model["num_classes"])
    model.load_imagenet(checkpoint)
    state = model.state_dict()
    names = [str(name) for name in case.stored["names"]]
    assert set(names) == set(state)

    def same(name: str) -> bool:
        return (
            name in checkpoint
            and state[name].shape == checkpoint[name].shape
            and bool((state[name] == checkpoint[name]).all())
        )

    found = {
        "names": np.array(names),
        "shapes": np.array([str(tuple(state[name].shape)) for name in names]),
        "from_imagenet_same_name": np.array([same(name) for name in names]),
        "no_weight_decay": np.array([not has_weight_decay(name, state[name]) for name in names]),
        "tok_std": np.array(
            [state[name].std().item() for name in ("tokenizer.0.weight", "tokenizer.2.weight", "head.weight")]
        ),
        **{name: state[name] for name in ("pos_embed_cls", "pos_embed_pat", "cls_token", "bg_token")},
    }
    return {(role, None): value for role, value in found.items()}


@runner("cti", "lr")
def lr(case: Case) -> Results:
    """Learning rates by epoch."""
    params, results = case.params, {}
    config = OptimConfig(
        lr=params["base_lr"], base_batch=params["base_batch"], min_lr=params["min_lr"], warmup_lr=params["warmup_lr"],
        warmup_epochs=params["warmup_epochs"],
    )  # fmt: skip
    for schedule in params["cases"]:
        peak = scaled_lr(config, schedule["batch_size"])
        rates = [cosine_lr(epoch, schedule["epochs"], peak, config) for epoch in range(schedule["epochs_listed"])]
        results["lr", schedule["name"]] = np.array(rates)
    return results


@runner("cti", "forward")
@torch.no_grad()
def forward(case: Case) -> Results:
    """All maps, with and without infusion."""
    model, params = network(case), case.params
    x, x2, tokens = case.input("x"), case.input("x2"), torch.as_tensor(case.input("swap_tokens"))
    s, s_alt, n, n_infer, layer = (params[name] for name in ("s", "s_alt", "n_layers", "n_layers_infer", "swap_layer"))
    embedded, (height, width) = model.embed(x)
    out = model(x, None, s, n)
    last = max(out.trace.after)
    found = {
        "tok0": embedded[0, : model.num_tokens],
        "pos_pat": resize_position_grid(model.pos_embed_pat, height, width),
        "inf_rcams": model.seed_maps(*model.embed(x), "rcams").cams
        if n_infer == model.depth
        else model(x, n_layers=n_infer).rcams,
        "def_rcams": model(x, n_layers=n).rcams,
        "o_attn_sub": out.attn,
        "o_attn_rowsum": out.attn.sum(-1),
        "o_ctk3": out.trace.after[3][:, : model.num_tokens],
        "o_ctk11": out.trace.after[last][:, : model.num_tokens],
        "o_Sattn_sub": torch.stack(list(layer_attentions(model, embedded))),
    }
    maps = ("cls", "pcls", "cams", "mtatt", "mtatt_as", "fcams", "fcams_as", "rcams")
    found |= {f"o_{name}": getattr(out, name) for name in maps}
    own = model(x2, None, s, n).trace.after[layer][:, : model.num_tokens]
    for prefix, infusion, swap in (("swap21", own, s), ("swap20", tokens, s), ("swap21_idx5", own, s_alt)):
        swapped = model(x, infusion, swap, n)
        found |= {f"{prefix}_{name}": getattr(swapped, name) for name in maps}
    return {(role, None): value for role, value in found.items()}


def layer_attentions(model: CTI, tokens: torch.Tensor) -> Iterator[torch.Tensor]:
    """Head-averaged attention (B, K+N, K+N) of each block."""
    for block in model.blocks:
        tokens, attention = block(tokens, MapRequest())
        yield attention


@runner("cti", "infer")
@torch.no_grad()
def infer(case: Case) -> Results:
    """Seeds of one image by the shared multi-view inference."""
    model, x, label = network(case), case.input("x"), case.input("label")
    assert case.params["n_layers_infer"] == model.depth
    maps = multi_view(model.foreground_maps("rcams"))(x, label).maps[0]
    return {
        ("keys", None): label[0].nonzero().flatten(),
        ("maps", None): maps,
        ("raw", None): model.seed_maps(*model.embed(x), "rcams").cams,
        ("raw_flip", None): model.seed_maps(*model.embed(x.flip(3)), "rcams").cams,
    }


@runner("cti", "loss")
def loss(case: Case) -> Results:
    """One training step for each state of the memory: losses, logits, memory and every gradient norm."""
    model, params, results = network(case), case.params, {}
    view1, view2, labels = case.input("view1"), case.input("view2"), torch.as_tensor(case.input("label")).float()
    config = LossConfig(
        weights=params["W"], aux_after_epoch=params["aux_after_epoch"], swap_idx=params["s"],
        n_layers=params["n_layers"], memory_size=params["memory_size"],
        detach_bg_cams=params["detach_cams_in_bg_loss"], skip_idle_cross=False,
    )  # fmt: skip
    foreground, background = refined_maps(model, config, view1, labels)  # no memory in them
    for scenario, rows in zip(params["cases"], case.input("memory"), strict=True):
        name = scenario["prefix"].removesuffix("_")
        memory = TokenMemory(len(rows), params["memory_size"], model.embed_dim)
        prefill(memory, rows)
        model.zero_grad(set_to_none=True)
        losses = CTIStep(model, config, memory)(view1, view2, labels, scenario["epoch"])
        losses["total"].backward()
        # The reference's terms are weighted, and 0 in epochs in which they are off.
        weight_bg, weight_intra, weight_cross = config.weights
        grads = {key: parameter.grad for key, parameter in model.named_parameters()}
        norms = [
            float("nan") if grads[str(key)] is None else grads[str(key)].double().norm().item()
            for key in case.stored["param_names"]
        ]
        found = {
            "cls_terms": torch.stack([losses[term] for term in ("cls", "pcls", "cls_view2", "pcls_view2")]),
            "loss_bg": weight_bg * losses["bg"], "loss_intra": weight_intra * losses["intra"],
            "loss_cross": weight_cross * losses["cross"], "total": losses["total"],
            "cls": losses["logits_cls"], "pcls": losses["logits_pcls"], "rcams_fg_sub": foreground, "rcams_bg_sub":
            background, "mem_len": memory.lengths(), "mem_mean": memory.means(), "grad_norm": np.array(norms),
        }  # fmt: skip
        results |= {(role, name): value for role, value in found.items()}
    return results


def prefill(memory: TokenMemory, rows: list[np.ndarray]) -> None:
    """Pushes the given vectors of each class, oldest first."""
    for label, vectors in enumerate(rows):
        if len(vectors):
            labels = F.one_hot(torch.full((len(vectors),), label), len(rows))
            memory.push(torch.from_numpy(vectors)[:, None].expand(-1, len(rows), -1), labels)


@torch.no_grad()
def refined_maps(
    model: CTI, config: LossConfig, view1: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """r_fg and r_bg of view 1, (B, 1, H, W): resized to the image."""
    out = model(view1, None, config.swap_idx, config.n_layers)
    pair = background_maps(out.trace, out.cams, labels)
    return tuple(F.interpolate(maps, size=view1.shape[-2:], mode="bilinear", align_corners=False) for maps in pair)
