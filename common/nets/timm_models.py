"""timm's models by name, for ``model.arch=timm:NAME``: facts about a model, and its weights in one form.

Importing timm takes seconds, so only runs with such a backbone import this module.
"""

import difflib
import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import eva, vision_transformer
from torch import Tensor, nn

from common.nets.hub import from_timm_hub
from common.nets.load import state_dict_in
from common.nets.options import PRETRAINED_DIR, TIMM, ViTConfig
from common.run.errors import UserError, preview

# timm's filters, which bring DINO's, CLIP's and other key styles into timm's names.
FILTERS: dict[type[nn.Module], Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]] = {
    vision_transformer.VisionTransformer: functools.partial(
        vision_transformer.checkpoint_filter_fn, adapt_layer_scale=True
    ),
    eva.Eva: eva.checkpoint_filter_fn,
}
# Parts of timm's models after the tokens: classifiers, pooling, and the norm of pooled tokens.
HEADS = ("head.", "head_dist.", "fc_norm.", "attn_pool.")
SUFFIXES = ("safetensors", "pth", "pt", "bin")
EXAMPLES = "vit_small_patch14_reg4_dinov2, vit_small_patch16_dinov3, vit_base_patch16_clip_224, eva02_small_patch14_224"


@dataclass(frozen=True)
class Facts:
    """A model's sizes, and the form of the images that its weights were trained on.

    Attributes:
        name: with the tag of its weights, as on the hub; without one, if there are no weights.
        width: D.
        depth: number of blocks.
        heads: attention heads.
        image: side of the images in pixels.
        patch: side of a patch in pixels.
        mean: of the normalisation, for pixels from 0 to 1.
        std: of the normalisation.
    """

    name: str
    width: int
    depth: int
    heads: int
    image: int
    patch: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@functools.lru_cache
def facts(arch: str) -> Facts:
    """The facts about ``timm:NAME`` as timm states them, before any change of the configuration.

    Raises:
        UserError: as `build`.
    """
    model = build(arch)
    about: dict[str, Any] = model.pretrained_cfg
    base = arch.removeprefix(TIMM).partition(".")[0]
    tag = about.get("tag") if timm.models.is_model_pretrained(base) else ""
    (patch, columns) = model.patch_embed.patch_size
    (height, width) = model.patch_embed.img_size
    if patch != columns or height != width:
        raise UserError(f"model.arch={arch} has patches or images that are not square, which no method here takes")
    attention = getattr(model.blocks[0], "attn", None)
    if attention is None:
        raise UserError(f"model.arch={arch} has blocks that are not understood: {type(model.blocks[0]).__name__}")
    return Facts(
        f"{base}.{tag}" if tag else base, model.embed_dim, len(model.blocks), attention.num_heads, height, patch,
        tuple(about["mean"]), tuple(about["std"]),
    )  # fmt: skip


def build(arch: str, **changes: Any) -> Any:
    """timm's model without memory for its weights (on the device "meta"), and without a classifier.

    Args:
        arch: ``timm:NAME``, with or without a tag.
        changes: arguments of timm's ``create_model`` in place of the model's own.

    Raises:
        UserError: timm has no such model, or it is no vision transformer of the two forms that are understood.
    """
    name = arch.removeprefix(TIMM)
    _check_name(name)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, on writing into tensors without memory
        try:
            model = timm.create_model(name, pretrained=False, num_classes=0, **changes)
        except (TypeError, AssertionError, ValueError, RuntimeError) as error:
            if not changes:
                raise UserError(f"model.arch={arch}: timm cannot build it ({_line(error)})") from error
            model = timm.create_model(name, pretrained=False, num_classes=0)
            _check_kind(arch, model)
            told = ", ".join(f"{key}={value}" for key, value in changes.items())
            raise UserError(f"model.arch={arch}: timm cannot build it with {told} ({_line(error)})") from error
    _check_kind(arch, model)
    return model


def timms_own(arch: str, more_tokens: int = 0, drop_path: float = 0.1, **changes: Any) -> nn.Module:
    """timm's model as it is, with random weights: what a method on it is measured against.

    Args:
        more_tokens: register tokens besides its own.
        changes: arguments of timm's ``create_model``.
    """
    name = arch.removeprefix(TIMM)
    known = build(arch)
    registers = "num_reg_tokens" if isinstance(known, eva.Eva) else "reg_tokens"
    own = known.num_prefix_tokens - (known.cls_token is not None)
    more = {registers: own + more_tokens} if more_tokens else {}
    return timm.create_model(name, pretrained=False, drop_path_rate=drop_path, **more, **changes)


def _check_name(name: str) -> None:
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        # Names differ in their middle as well: the most alike, then those with the same parts.
        near = difflib.get_close_matches(base, timm.list_models(), n=4, cutoff=0.6)
        hint = f" Near names: {', '.join(near)}." if near else ""
        raise UserError(f"model.arch={TIMM}{name}: timm has no model {base!r}.{hint} Examples: {EXAMPLES}")
    if tag and not timm.models.is_model_pretrained(name):
        tags = [known.partition(".")[2] for known in timm.list_models(f"{base}.*", pretrained=True)]
        known = f"known: {', '.join(tags)}" if tags else "it has none"
        raise UserError(f"model.arch={TIMM}{name}: {base} has no weights with the tag {tag!r}; {known}")


def _check_kind(arch: str, model: nn.Module) -> None:
    kind = type(model)
    if kind in FILTERS:
        return
    reason = "it is no vision transformer of equal blocks"
    if kind.__name__ == "Beit":
        reason = "its attention has biases of relative positions, which would have to be part of every attention map"
    elif kind.__name__ == "VisionTransformerDistilled":
        reason = "it has a distillation token besides the class token; take the model without 'distilled'"
    raise UserError(
        f"model.arch={arch} is timm's {kind.__name__}: {reason}. Understood are models of timm's classes "
        f"VisionTransformer and Eva, such as {EXAMPLES} (docs/backbones.md)"
    )


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def changed_sizes(config: ViTConfig) -> dict[str, Any]:
    """The arguments of timm's ``create_model`` for a configuration's sizes."""
    width, depth, heads = config.dimensions()
    known = facts(config.arch)
    sizes = {"embed_dim": width, "depth": depth, "num_heads": heads, "patch_size": config.patch_size}
    own = {"embed_dim": known.width, "depth": known.depth, "num_heads": known.heads, "patch_size": known.patch}
    changes = {name: size for name, size in sizes.items() if size != own[name]}
    return {**changes, "img_size": config.img_size, "dynamic_img_size": True}


def weight_files(name: str) -> list[Path]:
    """The files of ``pretrained/`` that a model's weights are looked for in."""
    return [PRETRAINED_DIR / f"{name}.{suffix}" for suffix in SUFFIXES]


def timm_weights(config: ViTConfig) -> dict[str, Tensor]:
    """The weights of a backbone in the form of a DeiT, see `as_deit`; positions are resized to its image by timm.

    Args:
        config: ``pretrained`` is ``auto`` (a file in ``pretrained/``, else timm's hub), or a file in the key style of
            timm, DINO or CLIP.

    Raises:
        UserError: no weights were found (the message says what to fetch, and where to put it), or they do not fit.
    """
    arch = config.arch
    model = build(arch, **changed_sizes(config))
    known = facts(arch)
    if config.pretrained != "auto":
        return _from_file(model, Path(config.pretrained))
    candidates = weight_files(known.name)
    for candidate in candidates:
        if candidate.is_file():
            return _from_file(model, candidate)
    if "." not in known.name:
        raise UserError(
            f"model.arch={arch}: timm publishes no weights of it. Name a file (model.pretrained=FILE), or train from "
            "random weights on purpose: model.pretrained=none"
        )
    try:
        state = from_timm_hub(known.name, img_size=config.img_size, num_classes=0)
    except Exception as error:  # the hub clients raise a dozen types when there is no network
        raise UserError(
            f"no weights of {known.name}: looked for {', '.join(map(str, candidates))} (from {Path.cwd()}), then asked "
            f"timm's hub, which failed ({_line(error)[:120]}). Without a network: fetch model.safetensors of "
            f"timm/{known.name} on another machine and put it there as {candidates[0]}, or name any file of these "
            "weights: model.pretrained=FILE. To train from random weights on purpose: model.pretrained=none"
        ) from error
    return _checked(model, state, known.name)


def _from_file(model: nn.Module, path: Path) -> dict[str, Tensor]:
    state = state_dict_in(path)
    try:
        filtered = FILTERS[type(model)](state, model)
    except Exception as error:  # the filters raise whatever a tensor of another network makes them raise
        raise UserError(f"{path} holds no weights of this model that timm can read ({_line(error)})") from error
    return _checked(model, filtered, str(path))


def _checked(model: nn.Module, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The weights as a DeiT's, after all tensors of the model were found, each with its shape, and no others.

    Raises:
        UserError: they are another model's.
    """
    kept = {name: value for name, value in state.items() if not name.startswith(HEADS)}
    wanted = {name: value for name, value in model.state_dict().items() if not name.startswith(HEADS)}
    own = wanted.keys()
    missing = sorted(own - kept.keys())
    extra = sorted(kept.keys() - own)
    wrong = sorted(name for name in own & kept.keys() if kept[name].shape != wanted[name].shape)
    problems = [
        f"{len(names)} {title} ({preview(names, 3)})"
        for title, names in (("missing", missing), ("of another shape", wrong), ("left over", extra))
        if names
    ]
    if problems:
        raise UserError(
            f"{source} does not fit this model: of its {len(own)} tensors {'; '.join(problems)}. Weights are loaded "
            "whole or not at all: patch size, width and depth must be the model's own"
        )
    return as_deit(model, kept)


def as_deit(model: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A backbone's weights in the form of a DeiT: ``cls_token`` (1, 1, D) and ``pos_embed`` (1, 1 + g*g, D).

    Positions of register tokens are added to the registers, which is the same. A class token without a position gets
    zeros for it, as do patches with rotary positions alone. A backbone without a class token gets a random one.

    Args:
        model: timm's model, on any device.
        state: under timm's names.
    """
    result = dict(state)
    grid = model.patch_embed.num_patches
    width = model.embed_dim
    registers = model.num_prefix_tokens - (model.cls_token is not None)
    if model.cls_token is None:
        token = torch.empty(1, 1, width)
        nn.init.trunc_normal_(token, std=0.02, generator=torch.Generator().manual_seed(0))
        result["cls_token"] = token
    positions = result.get("pos_embed", torch.zeros(1, grid, width))
    slots = positions.shape[1] - grid
    of_class = positions[:, : min(slots, 1)] if model.cls_token is not None else positions[:, :0]
    if registers and slots > 1:
        result["reg_token"] = result["reg_token"] + positions[:, slots - registers : slots]
    if not of_class.shape[1]:
        of_class = positions.new_zeros(1, 1, width)
    result["pos_embed"] = torch.cat([of_class, positions[:, slots:]], dim=1)
    return result
