"""Computes PSA's golden cases with the project's code."""

import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.crf.dense import dense_crf, seed_crf
from common.crf.options import CRFConfig
from common.data.transforms import normalised
from common.masks.pairs import pair_directions, pair_labels, random_walk, window
from common.train.course import Position
from methods.psa.affinity import pair_affinity
from methods.psa.config import PSAOptimConfig, PSAViewConfig, WalkConfig
from methods.psa.losses import affinity_losses
from methods.psa.marginals import Marginals
from methods.psa.optim import parameter_groups, psa_optimizer
from methods.psa.resnet38 import ResNet38
from methods.psa.views import PSAViews, draw_placement
from methods.psa.walk import padded, pseudo_mask, with_background
from tests.golden.harness import Case, Results, built, runner


def ends(height: int, width: int, radius: int) -> tuple[Tensor, Tensor]:
    """The flat indices of all pairs' sources, (P,), and other ends, (D, P)."""
    places = torch.arange(height * width).view(height, width)
    other = torch.stack([window(places, radius, direction).flatten() for direction in pair_directions(radius)])
    return window(places, radius).flatten(), other


def dense(affinity: Tensor, size: tuple[int, int], radius: int) -> Tensor:
    """The symmetric matrix (hw, hw) of affinities (D, h', w') with a diagonal of ones."""
    matrix, (source, other) = torch.eye(size[0] * size[1]), ends(*size, radius)
    matrix[source.expand_as(other), other] = affinity.flatten(1)
    matrix[other, source.expand_as(other)] = affinity.flatten(1)
    return matrix


@runner("psa", "crf")
def crf(case: Case) -> Results:
    """Seeds under several exponents, and plain probabilities under other settings."""
    image, params, results = case.input("image"), case.params, {}
    seed = dict(zip(case.input("keys").tolist(), case.input("cams"), strict=True))
    for alpha in params["alphas"]:
        marginals = seed_crf(image, seed, alpha, crf_config(params["crf"]))
        results["crf_alpha", alpha] = np.stack(list(marginals.values()))
    plain = case.input("probs_plain")
    for iterations in params["plain_iterations"]:
        results["crf_plain", iterations] = dense_crf(image, plain, crf_config(params["crf"], iterations))
    results["crf_segpost_t10", None] = dense_crf(image, plain, crf_config(params["crf_segpost"]))
    return results


def crf_config(params: dict, iterations: int = 0) -> CRFConfig:
    """The configuration that a case describes; without a colour width the default."""
    smooth, colour = params["gaussian"], params["bilateral"]
    return CRFConfig(
        iterations=iterations or params["iterations"], gaussian_sxy=smooth["sxy"], gaussian_compat=smooth["compat"],
        bilateral_sxy=colour["sxy"], bilateral_srgb=colour["srgb"], bilateral_compat=colour["compat"],
    )  # fmt: skip


@runner("psa", "afflabel")
def affinity_labels(case: Case) -> Results:
    """Pair labels of a label map, and where the pairs are."""
    radius = case.params["radius"]
    labels = torch.from_numpy(case.input("label"))[None]
    pairs = pair_labels(labels, pair_directions(radius), radius)
    found = {
        **dict(zip(("bg", "fg", "neg"), pairs, strict=True)),
        "counts": torch.stack([label.sum() for label in pairs]),
        "search_dist": np.array(pair_directions(radius)),
    }
    for height, width in case.params["pair_sizes"]:
        source, other = ends(height, width, radius)
        size = str(height) if height == width else f"{height}x{width}"
        found |= {f"ind_from_{size}": source, f"ind_to_{size}": other.flatten(), f"ind_to_{size}_sub": other.flatten()}
    return {(role, None): value for role, value in found.items()}


@runner("psa", "labelpipe")
def label_pipeline(case: Case) -> Results:
    """Random views of an image and its marginals."""
    params, results = case.params, {}
    image = case.input("image")
    marginals = Marginals(case.input("la"), case.input("ha"))
    jitter = [0.3, 0.3, 0.3, 0.1] if params["color_jitter"] else [0.0] * 4
    views = PSAViews(PSAViewConfig(crop_size=params["crop"], jitter=jitter), params["downsample"])
    for seed in params["python_seeds"]:
        random.seed(seed)
        drawn = draw_placement(*image.shape[:2], params["crop"])
        random.seed(seed)
        view, labels = views((Image.fromarray(image), marginals))
        pairs = pair_labels(labels[None], pair_directions(params["radius"]), params["radius"])
        found = {
            "draw": np.array(drawn), "label": labels, "img_sub": normalised(view),
            "counts": torch.stack([label.sum() for label in pairs]),
        }  # fmt: skip
        results |= {(role, seed): value for role, value in found.items()}
    return results


@runner("psa", "loss")
def loss(case: Case) -> Results:
    """The losses of given affinities, and the gradient."""
    radius, crop = case.params["radius"], case.params["crop"]
    labels = torch.from_numpy(case.input("labels")).view(-1, crop, crop)
    pairs = pair_labels(labels, pair_directions(radius), radius)
    given = torch.from_numpy(case.input("aff")).requires_grad_()
    losses = affinity_losses(given.view(pairs.background.shape), pairs)
    losses["total"].backward()
    found = {
        **{f"{name}_loss": losses[name] for name in ("bg", "fg", "neg")}, "loss": losses["total"],
        "counts": torch.stack([label.sum() for label in pairs]), "grad_aff": given.grad,
    }  # fmt: skip
    return {(role, None): value for role, value in found.items()}


@runner("psa", "net")
@torch.no_grad()
def network(case: Case) -> Results:
    """AffinityNet on ResNet-38: its trunk's maps, affinities, their matrix, and what is trained."""
    assert case.model["arch"] == "resnet38_aff"
    radius, x = case.model["radius"], case.input("x")
    model = built(ResNet38, case.entry["weights_seed"]).train(case.params["mode"] == "train")
    conv4, conv5, conv6 = model.stages(x)
    features = model(x)
    affinity = pair_affinity(features, pair_directions(radius), radius)
    matrix = dense(affinity[0], tuple(features.shape[-2:]), radius)
    found = {
        "conv4_sub": conv4, "conv5_sub": conv5, "conv6_sub": conv6, "aff": affinity, "dense_sub": matrix,
        "dense_rowsum": matrix.sum(1), "dense_colsum": matrix.sum(0),
        "group_sizes": np.array([len(group) for group in parameter_groups(model)]),
    }  # fmt: skip
    return {(role, None): value for role, value in found.items()}


@runner("psa", "walk")
def walk(case: Case) -> Results:
    """The walk along affinities of given features: transition matrices (walks from each cell), scores, masks."""
    params, size = case.params, tuple(case.input("hw").tolist())
    radius, cell, directions = params["radius"], params["cell"], pair_directions(params["radius"])
    features = torch.from_numpy(case.input("feat"))
    affinity = pair_affinity(features, directions, radius)
    grid = tuple(features.shape[-2:])
    cells = torch.eye(grid[0] * grid[1]).view(-1, *grid)
    seed = dict(zip(case.input("keys").tolist(), case.input("cams"), strict=True))
    results: Results = {("aff", None): affinity, ("dense_sub", None): dense(affinity[0], grid, radius)}
    for variant in params["variants"]:
        config = WalkConfig(
            background="constant" if variant["bg_alpha"] is None else "alpha", bg_thr=variant["bg_const"] or 0.0,
            bg_alpha=variant["bg_alpha"] or 0.0, beta=variant["beta"], log2_rounds=variant["logt"],
        )  # fmt: skip
        first, last = (
            random_walk(cells, affinity[0], directions, radius, config.beta, rounds).flatten(1)
            for rounds in (0, config.log2_rounds)
        )
        pooled = torch.nn.functional.avg_pool2d(padded(with_background(seed, config), cell), cell)
        walked = random_walk(pooled, affinity[0], directions, radius, config.beta, config.log2_rounds)
        rows = torch.tensor([0, *(key + 1 for key in seed)])
        found = {
            "T0_sub": first, "T_sub": last, "T_colsum": last.sum(0),
            "cam_pooled": with_absent(pooled, rows, params["num_classes"]),
            "rw": with_absent(walked, rows, params["num_classes"]),
            "label": pseudo_mask(seed, size, features[0], cell, radius, config),
        }  # fmt: skip
        results |= {(role, variant["prefix"].rstrip("_")): value for role, value in found.items()}
    return results


def with_absent(maps: Tensor, rows: Tensor, count: int) -> Tensor:
    """Maps (n, h, w) of some labels among those of all, zero elsewhere: (count, h, w)."""
    return maps.new_zeros((count, *maps.shape[1:])).index_copy(0, rows, maps)


@runner("psa", "lr")
def lr(case: Case) -> Results:
    """Learning rates of the four groups by step."""
    params = case.params
    config = PSAOptimConfig(lr=params["base_lr"], power=params["power"])
    with torch.device("meta"):
        groups = psa_optimizer(ResNet38(), config).param_groups
    assert [group["lr_scale"] for group in groups] == params["group_multipliers"]
    rates = [
        [config.rate(Position(total_steps=int(step)), params["max_step"]) * group["lr_scale"] for group in groups]
        for step in case.input("steps")
    ]
    return {("lr", None): np.array(rates)}
