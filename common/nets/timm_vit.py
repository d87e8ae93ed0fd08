"""timm's vision transformers in the form of `common.nets.vit`: their own layers, class tokens of a method, maps.

A model is taken apart into the layers that timm made; only the order in which they are called is written here, as far
as attention maps, class tokens of a method and other image sizes need it. A layer that is not understood is refused.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import (
    Attention,
    AttentionRope,
    PatchEmbed,
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    apply_rot_embed_cat,
    resample_abs_pos_embed,
)
from timm.models.eva import EvaAttention, EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from common.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from common.nets.attention import MapRequest, attend
from common.nets.options import TIMM, ViTConfig
from common.nets.timm_models import build, changed_sizes, facts
from common.run.errors import UserError

# Names of the layers and parameters that a block and its attention may have.
BLOCK_PARTS = {
    "norm1", "attn", "ls1", "gamma_1", "drop_path1", "norm2", "mlp", "ls2", "gamma_2", "drop_path2",
}  # fmt: skip
ATTENTION_PARTS = {
    "qkv", "q_proj", "k_proj", "v_proj", "q_bias", "k_bias", "v_bias", "q_norm", "k_norm", "norm", "attn_drop", "proj",
    "proj_drop",
}  # fmt: skip
MODEL_PARTS = {
    "patch_embed", "cls_token", "reg_token", "pos_embed", "pos_drop", "patch_drop", "norm_pre", "blocks", "norm",
    "fc_norm", "attn_pool", "head_drop", "head", "rope",
}  # fmt: skip
GRIDS_KEPT = 32  # of rotary positions


class TimmPatchEmbed(nn.Module):
    """timm's patch embedding of ImageNet-normalised images of any size.

    Images get the normalisation that the backbone's weights were trained with, and are padded with zeros at the right
    and bottom to whole patches.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, embedding: PatchEmbed, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.proj = embedding.proj
        self.norm = embedding.norm
        self.patch = embedding.patch_size[0]
        self.is_imagenets = tuple(mean) == IMAGENET_MEAN and tuple(std) == IMAGENET_STD
        ours = torch.tensor([IMAGENET_MEAN, IMAGENET_STD], dtype=torch.float64)
        theirs = torch.tensor([tuple(mean), tuple(std)], dtype=torch.float64)
        self.register_buffer("scale", (ours[1] / theirs[1]).float().view(3, 1, 1), persistent=False)
        self.register_buffer("shift", ((ours[0] - theirs[0]) / theirs[1]).float().view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to maps (B, D, h, w) of ceil(H / p) x ceil(W / p) patches."""
        if not self.is_imagenets:
            images = images * self.get_buffer("scale") + self.get_buffer("shift")
        height, width = images.shape[-2:]
        if height % self.patch or width % self.patch:
            images = F.pad(images, (0, -width % self.patch, 0, -height % self.patch))
        maps = self.proj(images)
        return maps if isinstance(self.norm, nn.Identity) else self.norm(maps.movedim(1, -1)).movedim(-1, 1)


class TimmAttention(nn.Module):
    """The layers of timm's attention, with attention maps on request."""

    qkv: nn.Linear
    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    q_bias: Tensor
    k_bias: Tensor
    v_bias: Tensor
    q_norm: nn.Module
    k_norm: nn.Module
    norm: nn.Module
    proj: nn.Linear

    def __init__(self, attention: Any) -> None:
        super().__init__()
        _adopt(self, attention)
        self.num_heads = attention.num_heads
        self.is_joined = attention.qkv is not None
        self.has_bias_parameters = getattr(attention, "q_bias", None) is not None  # beside the layer ``qkv``
        self.rotates_halves = getattr(attention, "rotate_half", False)

    def project(self, x: Tensor, rotary: Tensor | None, first_patch: int) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v (B, heads, T, d) of tokens (B, T, D), normalised and rotated as the model does."""
        if self.is_joined:
            own = self.qkv.bias
            bias = torch.cat([self.q_bias, self.k_bias, self.v_bias]) if self.has_bias_parameters else own
            parts = F.linear(x, self.qkv.weight, bias).chunk(3, dim=-1)
        else:
            parts = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = (self._rotated(part, rotary, first_patch).type_as(v) for part in (q, k))
        return q, k, v

    def _rotated(self, x: Tensor, rotary: Tensor, first_patch: int) -> Tensor:
        """Queries or keys (B, heads, T, d) with the patches' rotated by their positions."""
        patches = apply_rot_embed_cat(x[:, :, first_patch:], rotary, half=self.rotates_halves)
        return torch.cat([x[:, :, :first_patch], patches], dim=2)

    def forward(
        self, x: Tensor, request: MapRequest | None, rotary: Tensor | None, first_patch: int
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, T, D) to tokens, and the head-averaged map if requested; see `TimmBlock.forward`."""
        out, attention = attend(*self.project(x, rotary, first_patch), request)
        return self.proj(self.norm(out.transpose(1, 2).flatten(2))), attention


class TimmBlock(nn.Module):
    """The layers of timm's pre-norm block under their names, in the form of `common.nets.layers.Block`."""

    norm1: nn.Module
    drop_path1: nn.Module
    norm2: nn.Module
    mlp: nn.Module
    drop_path2: nn.Module

    def __init__(self, block: Any) -> None:
        super().__init__()
        _adopt(self, block)
        self.attn = TimmAttention(block.attn)

    def _scaled(self, x: Tensor, number: int) -> Tensor:
        """A branch's output under LayerScale: a layer in `Block`, a parameter in `EvaBlock`, which may lack it."""
        if hasattr(self, f"ls{number}"):
            return self.get_submodule(f"ls{number}")(x)
        gamma = getattr(self, f"gamma_{number}", None)
        return x if gamma is None else gamma * x

    def forward(
        self, x: Tensor, request: MapRequest | None = None, rotary: Tensor | None = None, first_patch: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, T, D) to tokens, and the attention map if requested (see `common.nets.attention.attend`).

        Args:
            rotary: positions of the patches (N, 2d), if the model has rotary ones.
            first_patch: place of the first patch token.
        """
        attended, attention = self.attn(self.norm1(x), request, rotary, first_patch)
        x = x + self.drop_path1(self._scaled(attended, 1))
        return x + self.drop_path2(self._scaled(self.mlp(self.norm2(x)), 2)), attention

    def queries(self, x: Tensor, rotary: Tensor | None = None, first_patch: int = 0) -> Tensor:
        """q (B, T, D) of tokens that enter the block, as its attention uses them but not scaled, heads side by
        side.
        """
        return self.attn.project(self.norm1(x), rotary, first_patch)[0].transpose(1, 2).flatten(2)


class Rotary:
    """Rotary positions of any patch grid. Those of DINOv3 are taken without the random scale of its pre-training."""

    def __init__(self, rope: nn.Module) -> None:
        self._rope = rope.eval()  # kept outside of the network's modules: without weights, and never in training mode
        self.at = functools.lru_cache(GRIDS_KEPT)(self._at)

    def _at(self, grid: tuple[int, int], device: torch.device) -> Tensor:
        """Sines and cosines (N, 2d) of a grid (h, w), row-major."""
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return self._rope.get_embed(list(grid)).to(device)  # type: ignore[operator]


@dataclass
class Parts:
    """A model taken apart. Layers hold timm's first random weights.

    Attributes:
        patch_embed: maps images (B, 3, H, W) to (B, D, h, w).
        blocks: of `TimmBlock`.
        reg_token: register tokens (1, R, D), or None.
        norm_pre: norm of the tokens before the blocks; an identity in most models.
        norm: norm of the tokens after the blocks; an identity where timm normalises pooled tokens.
        rotary: positions that rotate queries and keys, or None.
        has_positions: whether there are absolute positions of the patches.
        has_class_token: whether the model has a class token of its own.
    """

    patch_embed: TimmPatchEmbed
    blocks: nn.ModuleList
    reg_token: nn.Parameter | None
    norm_pre: nn.Module
    norm: nn.Module
    rotary: Rotary | None
    has_positions: bool
    has_class_token: bool


def timm_parts(config: ViTConfig) -> Parts:
    """The parts of a model at a configuration's sizes, with random weights.

    Raises:
        UserError: there is no such model at these sizes, or it has a layer that is not understood.
    """
    arch = config.arch
    changes = changed_sizes(config)
    _check_parts(arch, build(arch, **changes))
    model: Any = timm.create_model(
        arch.removeprefix(TIMM), pretrained=False, num_classes=0, drop_path_rate=config.drop_path, **changes
    )
    known = facts(arch)
    return Parts(
        TimmPatchEmbed(model.patch_embed, known.mean, known.std), nn.ModuleList(map(TimmBlock, model.blocks)),
        model.reg_token, model.norm_pre, model.norm, Rotary(model.rope) if getattr(model, "rope", None) else None,
        model.pos_embed is not None, model.cls_token is not None,
    )  # fmt: skip


def resized_positions(embedding: Tensor, height: int, width: int, excess: float = 0.0) -> Tensor:
    """Position embeddings (1, g*g, D) of a square grid for another, (1, height*width, D), as timm resizes them.

    Args:
        excess: not used: timm states sizes.
    """
    return resample_abs_pos_embed(embedding, [height, width], num_prefix_tokens=0)


def _adopt(module: nn.Module, source: nn.Module) -> None:
    """Gives a module the layers and parameters of another, under their names, and its constant buffers."""
    for name, child in source.named_children():
        module.add_module(name, child)
    for name, parameter in source.named_parameters(recurse=False):
        module.register_parameter(name, parameter)
    for name, buffer in source.named_buffers(recurse=False):
        module.register_buffer(name, buffer, persistent=False)


def _check_parts(arch: str, model: Any) -> None:
    """Checks every layer of a model.

    Raises:
        UserError: one is not understood; it is named.
    """
    unknown = _unknown(model, MODEL_PARTS)
    rope = getattr(model, "rope", None)
    if type(model.patch_embed) is not PatchEmbed:
        unknown.append(f"patch_embed: {type(model.patch_embed).__name__}")
    if rope is not None and type(rope) not in (RotaryEmbeddingCat, RotaryEmbeddingDinoV3):
        unknown.append(f"rope: {type(rope).__name__}")
    if rope is not None and model.embed_dim // model.blocks[0].attn.num_heads % 4:
        raise UserError(
            f"model.arch={arch} has rotary positions: width divided by heads must be a multiple of 4, here it is "
            f"{model.embed_dim / model.blocks[0].attn.num_heads:g} (model.embed_dim, model.num_heads)"
        )
    for block in model.blocks:
        if type(block) not in (Block, EvaBlock):
            unknown.append(f"blocks: {type(block).__name__}")
        elif type(block.attn) not in (Attention, AttentionRope, EvaAttention):
            unknown.append(f"attn: {type(block.attn).__name__}")
        else:
            unknown += _unknown(block, BLOCK_PARTS) + _unknown(block.attn, ATTENTION_PARTS)
            if getattr(block.attn, "num_kv_groups", 1) != 1:
                unknown.append("attn: fewer heads of keys than of queries")
    if unknown:
        raise UserError(
            f"model.arch={arch} has layers that are not understood: {', '.join(dict.fromkeys(unknown))}. "
            "It is refused, as its features would only be approximated (docs/backbones.md has the models that work)"
        )


def _unknown(module: nn.Module, known: set[str]) -> list[str]:
    """Parts of a module under other names than the known ones, and layers that drop values at random."""
    layers = dict(module.named_children())
    parts = [*layers, *dict(module.named_parameters(recurse=False))]
    dropping = [name for name, layer in layers.items() if isinstance(layer, nn.Dropout) and layer.p > 0]
    return [name for name in parts if name not in known] + dropping
