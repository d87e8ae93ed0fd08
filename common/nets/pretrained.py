"""ImageNet weights of backbones: a file in pretrained/, or timm's or torchvision's hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from common.nets.hub import from_timm_hub
from common.nets.load import Coverage, state_dict_in
from common.nets.options import PRETRAINED_DIR, TIMM, ViTConfig
from common.nets.vit import ViTBackbone, resize_position_grid
from common.run.errors import UserError

RANDOM_WEIGHTS = (
    "WARNING: the backbone starts from RANDOM weights (model.pretrained=none). Results will be far below the published "
    "ones; this is meant for tests, demos and experiments."
)

# File names under which the public ImageNet weights circulate, in the order they are looked for.
OFFICIAL_FILES = {
    "deit_tiny_patch16_224": (
        "deit_tiny_imagenet.pth",
        "deit_tiny_patch16_224-a1311bcf.pth",
        "deit_tiny_patch16_224.safetensors",
    ),
    "deit_small_patch16_224": (
        "deit_small_imagenet.pth",
        "deit_small_patch16_224-cd65a155.pth",
        "deit_small_patch16_224.safetensors",
    ),
    "deit_base_patch16_224": (
        "deit_base_imagenet.pth",
        "deit_base_patch16_224-b5f2ef4d.pth",
        "deit_base_patch16_224.safetensors",
    ),
    # ImageNet-21k, then 1k. timm's plain "vit_base_patch16_224" is another training (augreg) and not accepted.
    "vit_base_patch16_224": (
        "jx_vit_base_p16_224-80ecf9dd.pth",
        "vit_base_patch16_224.orig_in21k_ft_in1k.safetensors",
    ),
    # torchvision's IMAGENET1K_V1: both names mean the same weights.
    "resnet18": ("resnet18-5c106cde.pth", "resnet18-f37072fd.pth"),
    "resnet34": ("resnet34-333f7ec4.pth", "resnet34-b627a593.pth"),
    "resnet50": ("resnet50-19c8e357.pth", "resnet50-0676ba61.pth"),
    "resnet101": ("resnet101-5d3b4d8f.pth", "resnet101-63fe2227.pth"),
    "resnet152": ("resnet152-b121ed2d.pth", "resnet152-394f9c45.pth"),
}
HUB_TAGS = {"vit_base_patch16_224": "orig_in21k_ft_in1k"}  # of timm's models; all others are fb_in1k


def imagenet_weights(arch: str, source: str, timms: ViTConfig | None = None) -> dict[str, Tensor] | None:
    """The ImageNet state dict of a backbone under timm's (ResNets: torchvision's) names, or None for random weights.

    Args:
        source: ``auto`` (a file in ``pretrained/``, else timm's or torchvision's hub), ``none``, or a file.
        timms: the configuration of a backbone that may be one of timm's models.

    Raises:
        UserError: no weights were found; the message names the places that were searched, and the files to fetch.
    """
    if source == "none":
        return None
    if timms and timms.is_timms:
        from common.nets.timm_models import timm_weights

        return timm_weights(timms)
    if source != "auto":
        return state_dict_in(Path(source))
    candidates = [PRETRAINED_DIR / name for name in OFFICIAL_FILES[arch]]
    for candidate in candidates:
        if candidate.is_file():
            return state_dict_in(candidate)
    try:
        return _from_hub(arch)
    except Exception as error:  # the hub clients raise a dozen types when there is no network
        raise UserError(
            f"no ImageNet weights for {arch}: looked for {', '.join(map(str, candidates))} (from {Path.cwd()}), then "
            f"asked {_library(arch)}'s hub, which failed ({type(error).__name__}: {str(error)[:120]}). Without a "
            f"network: fetch one of these files on another machine ({PRETRAINED_DIR}/README.md says where from) and "
            f"put it into {PRETRAINED_DIR}/. To train from random weights on purpose: model.pretrained=none"
        ) from error


HEADS = ("head.", "head_dist.", "pre_logits.")  # of classifiers of ImageNet
WITHIN = ("", "encoder.", "backbone.", "model.", "deit.", "vit.")  # where larger networks have the backbone
NEEDED = "an undistilled DeiT or ViT is needed (pretrained/README.md)"


def backbone_state(state: Mapping[str, Tensor], model: ViTBackbone) -> dict[str, Tensor]:
    """The part of a checkpoint that a DeiT or ViT with one class token starts from, for every method alike.

    Args:
        state: of a file; for one of timm's models: of `imagenet_weights`, which has checked it.
        model: the backbone; position embeddings of another grid are resized to its own, bicubic.

    Returns:
        The tensors under timm's names, without classifiers; ``pos_embed`` (1, 1 + g * g, D).

    Raises:
        UserError: the network is of another kind, which the message names.
    """
    if model.is_timms:
        return dict(state)
    refused = "the ImageNet checkpoint does not fit this model: it"
    prefix = next((prefix for prefix in WITHIN if f"{prefix}patch_embed.proj.weight" in state), "")
    part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    kept = {name: value for name, value in part.items() if not name.startswith(HEADS)}
    if "dist_token" in kept:
        raise UserError(f"{refused} is distilled (it has a dist_token); {NEEDED}")
    if "reg_token" in kept:
        raise UserError(f"{refused} has register tokens (reg_token); {NEEDED}")
    scaled = [name for name in kept if ".ls1." in name or ".ls2." in name or ".gamma_" in name]
    if scaled:
        raise UserError(f"{refused} scales its layers (LayerScale, as DeiT-III does: {scaled[0]}); {NEEDED}")
    if not {"cls_token", "pos_embed"} <= kept.keys():
        raise UserError(f"{refused} has no cls_token, or no pos_embed; {NEEDED}")
    positions = kept["pos_embed"]
    count = positions.shape[1] - 1 if positions.ndim == 3 else 0
    if count < 1 or round(count**0.5) ** 2 != count:
        raise UserError(
            f"{refused} has a pos_embed {tuple(positions.shape)} of other than one class token and a square grid; "
            f"{NEEDED}"
        )
    if positions.is_floating_point():
        patches = resize_position_grid(positions[:, 1:], model.grid, model.grid)
        kept["pos_embed"] = torch.cat([positions[:, :1], patches], dim=1)
    return kept


class StartsFromImageNet(Protocol):
    """A network that can start from ImageNet weights."""

    def load_imagenet(self, weights: Mapping[str, Tensor], /) -> "Coverage":
        """Loads them, as far as they fit."""
        ...


def start_weights(
    model: StartsFromImageNet, arch: str, source: str, is_resumed: bool, timms: ViTConfig | None = None
) -> str:
    """Starts a network from ImageNet, if a training begins.

    Args:
        source: see `imagenet_weights`, as for ``timms``.
        is_resumed: whether a checkpoint will replace the weights.

    Returns:
        The origin of its weights, for the log.
    """
    if is_resumed:
        return "resumed"
    weights = imagenet_weights(arch, source, timms)
    if weights is None:
        return RANDOM_WEIGHTS
    name = arch if arch.startswith(TIMM) else f"{arch} of ImageNet"
    return f"{name}, {model.load_imagenet(weights)}"


def _library(arch: str) -> str:
    """The library that publishes the network."""
    return "torchvision" if arch.startswith("resnet") else "timm"


def _from_hub(arch: str) -> dict[str, Tensor]:
    if _library(arch) == "torchvision":
        from torchvision.models import get_model_weights

        return get_model_weights(arch)["IMAGENET1K_V1"].get_state_dict(progress=False, check_hash=True)
    return from_timm_hub(f"{arch}.{HUB_TAGS.get(arch, 'fb_in1k')}")
