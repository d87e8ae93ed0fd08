"""ViT backbone: DeiT's layers or those of one of timm's models, any number of class tokens, attention maps on request.

The fused kernel computes attention wherever no map is requested. A method requests the maps of each block
(`MapRequest`), and gets them averaged over the heads.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.nets.attention import MapRequest
from common.nets.layers import Block, PatchEmbed
from common.nets.options import ViTConfig
from common.run.errors import UserError

if TYPE_CHECKING:
    from common.nets.timm_vit import Rotary

T = TypeVar("T")


class ClassMaps(NamedTuple):
    """The result of a pass for seeds.

    Attributes:
        cams: (B, K, h, w), before normalisation; of C classes where a background map is left out.
        logits: class logits (B, C).
        padded: the size of the padded image that the maps belong to, see `unpadded`; None where nothing was padded.
    """

    cams: Tensor
    logits: Tensor
    padded: tuple[int, int] | None = None


class ViTBackbone(nn.Module):
    """Patch embedding and blocks; a method adds its K class tokens, position embeddings and heads.

    Tokens are K class tokens, R register tokens (of some of timm's models), N patch tokens: T = K + R + N.

    Attributes:
        grid: patches per side at the training size.
        num_tokens: K, set by the method.
        is_timms: whether the layers are those of one of timm's models.
        has_class_token: whether the architecture has a class token of its own.
        class_attention_weight: factor of the sum over layers of class-to-patch attention in seeds.
    """

    num_tokens: int
    class_attention_weight = 1.0
    has_class_token = True
    reg_token: nn.Parameter | None

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        config.check()
        self.embed_dim, self.depth, self.num_heads = config.dimensions()
        self.patch_size = config.patch_size
        self.grid = config.img_size // config.patch_size
        self._frozen = config.frozen_layers()
        self._rotary: Rotary | None = None
        self._has_positions = True
        self.is_timms = config.is_timms
        self._resize = resize_position_grid
        self._norm: tuple[nn.Module, ...] = ()  # no layer of the network, unless a method asks for it
        self.register_parameter("reg_token", None)
        if config.is_timms:
            self._take_apart(config)
        else:
            self._make_layers(config)
        for index, layer in enumerate([self.patch_embed, *self.blocks]):
            layer.requires_grad_(index not in self._frozen)

    def _make_layers(self, config: ViTConfig) -> None:
        """The architectures of `common.nets.options`."""
        self.patch_embed: nn.Module = PatchEmbed(config.patch_size, self.embed_dim)
        rates = torch.linspace(0, config.drop_path, self.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(self.embed_dim, self.num_heads, rate) for rate in rates)
        for block in self.blocks:
            for module in block.modules():
                if isinstance(module, nn.Linear):
                    nn.init.trunc_normal_(module.weight, std=0.02)
                    nn.init.zeros_(module.bias)
        self.norm_pre: nn.Module = nn.Identity()

    def _take_apart(self, config: ViTConfig) -> None:
        """One of timm's models."""
        from common.nets.timm_vit import resized_positions, timm_parts  # it takes seconds to import

        parts = timm_parts(config)
        self.patch_embed = parts.patch_embed
        self.blocks = parts.blocks
        self.norm_pre = parts.norm_pre.requires_grad_(0 not in self._frozen)
        if parts.reg_token is not None:
            self.reg_token = parts.reg_token
            self.reg_token.requires_grad_(0 not in self._frozen)
        self.has_class_token = parts.has_class_token
        self._has_positions = parts.has_positions
        self._rotary = parts.rotary
        self._resize = resized_positions
        self._norm = (parts.norm,)

    def last_norm(self) -> nn.Module:
        """A norm for the tokens after the last block, to be registered under the name ``norm``."""
        norm = self._norm[0] if self._norm else nn.LayerNorm(self.embed_dim, eps=1e-6)
        return norm.requires_grad_(self.depth + 1 not in self._frozen)

    @property
    def first_patch(self) -> int:
        """K + R, the place of the first patch token."""
        return self.num_tokens + (0 if self.reg_token is None else self.reg_token.shape[1])

    def settle_positions(self, embedding: nn.Parameter) -> None:
        """Ends the initialisation of a method's position embedding.

        It stays at zero, untrained, where the backbone has rotary positions alone, and is not trained where the
        embedding layer is frozen.
        """
        if not self._has_positions:
            nn.init.zeros_(embedding)
        if not self._has_positions or 0 in self._frozen:
            embedding.requires_grad_(False)

    def settle_tokens(self, token: nn.Parameter) -> None:
        """Ends the initialisation of a class token of the backbone's own: it is part of the embedding layer."""
        if 0 in self._frozen:
            token.requires_grad_(False)

    def resize_positions(self, embedding: Tensor, height: int, width: int, excess: float = 0.0) -> Tensor:
        """Position embeddings (1, g*g, D) of the patches for another grid, (1, height*width, D), row-major.

        As the references do it (`resize_position_grid`, which has ``excess``), for timm's models as timm does it.
        """
        return self._resize(embedding, height, width, excess)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """The patch grid (h, w) of an image; see `embed_patches`."""
        rest = self.patch_size - 1 if self.is_timms else 0
        return (height + rest) // self.patch_size, (width + rest) // self.patch_size

    def embed_patches(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to a patch map (B, D, h, w).

        A remainder of less than a patch at the right and bottom is dropped; timm's models pad it to a patch.

        Raises:
            UserError: the image is smaller than a patch.
        """
        if min(images.shape[-2:]) < self.patch_size:
            raise UserError(
                f"an image of {images.shape[-1]}x{images.shape[-2]} pixels is smaller than one patch "
                f"({self.patch_size})"
            )
        return self.patch_embed(images)

    def enter(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, D) entering the first block, of class and patch tokens (B, K+N, D) with their positions."""
        if self.reg_token is not None:
            registers = self.reg_token.to(tokens.dtype).expand(len(tokens), -1, -1)
            tokens = torch.cat([tokens[:, : self.num_tokens], registers, tokens[:, self.num_tokens :]], dim=1)
        return self.norm_pre(tokens)

    def blocks_at(self, grid: tuple[int, int]) -> list[Callable[..., tuple[Tensor, Any]]]:
        """The blocks, as functions of tokens (B, T, D) and a `MapRequest`, for tokens of a patch grid (h, w)."""
        return [self._at(block, grid) for block in self.blocks]

    def queries_at(self, grid: tuple[int, int], index: int) -> Callable[[Tensor], Tensor]:
        """A function of the tokens that enter a block: their q (B, T, D), heads side by side, not scaled."""
        return self._at(cast("Block", self.blocks[index]).queries, grid)

    def _at(self, function: Callable[..., T], grid: tuple[int, int]) -> Callable[..., T]:
        if self._rotary is None:
            return function
        rotary = self._rotary.at(grid, next(self.blocks.parameters()).device)
        return functools.partial(function, rotary=rotary, first_patch=self.first_patch)

    def padded_size(self, maps: Tensor, size: tuple[int, int]) -> tuple[int, int] | None:
        """The size to which an image of ``size`` (H, W) with maps (..., h, w) was padded; None: it was not."""
        height, width = (side * self.patch_size for side in maps.shape[-2:])
        return None if height <= size[0] and width <= size[1] else (height, width)

    def read_heads(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits (B, C), patch logits (B, C) and CAMs (B, K, h, w) of the last block's tokens (B, K+N, D)."""
        raise NotImplementedError

    @torch.no_grad()
    def seed_maps(self, tokens: Tensor, grid: tuple[int, int], kind: str) -> ClassMaps:
        """The maps that become seeds, (B, K, h, w), with attention summed over all layers, and the class logits.

        Args:
            tokens: (B, K+N, D) entering the first block.
            kind: ``rcams`` = attn @ (mtatt * F), the methods' own; ``fcams`` = mtatt * F; ``cams`` = F.
        """
        count = self.num_tokens
        first = self.first_patch
        size = tokens.shape[1]
        total = tokens.new_zeros(len(tokens), size if kind == "rcams" else count, size, dtype=torch.float32)
        for block in self.blocks_at(grid):
            if kind == "rcams":  # class rows and patch rows are sums over the same layers: one sum of whole maps
                tokens, _ = block(tokens, MapRequest(into=total))
            elif kind == "fcams":
                tokens, attention = block(tokens, MapRequest(count))
                total += attention
            else:
                tokens, _ = block(tokens)
        logits, _, cams = self.read_heads(tokens, grid)
        if kind == "cams":
            return ClassMaps(cams, logits)
        fused = self.class_attention_weight * total[:, :count, first:] * cams.flatten(2)  # B K N
        maps = refine(total[:, first:, first:], fused) if kind == "rcams" else fused
        return ClassMaps(maps.unflatten(2, grid), logits)


def unpadded(maps: Tensor, padded: tuple[int, int] | None, size: tuple[int, int]) -> Tensor:
    """Maps (B, k, h, w) of an image of ``size`` (H, W) without the part that shows the padding of timm's models.

    Args:
        padded: the size of the padded image; None: the maps stay as they are.

    Returns:
        The maps; of a padded image (B, k, H, W), bilinear, cut at the right and bottom.
    """
    if padded is None:
        return maps
    full = F.interpolate(maps, size=padded, mode="bilinear", align_corners=False)
    return full[..., : size[0], : size[1]]


def refine(attention: Tensor, maps: Tensor) -> Tensor:
    """Spreads maps (B, k, N) along patch affinity (B, N, N): out[b, k, i] = sum_j attention[b, i, j] maps[b, k, j]."""
    return (attention @ maps.transpose(1, 2).to(attention.dtype)).transpose(1, 2)


def resize_position_grid(embedding: Tensor, height: int, width: int, excess: float = 0.0) -> Tensor:
    """Position embeddings (1, g*g, D) of a square grid for another grid: (1, height*width, D), row-major.

    Bicubic without antialiasing, as the references do it (timm's own resize antialiases and gives other numbers).

    Args:
        excess: added to either side where MCTformer states the factor of the resize, and so the sampling points; the
            size stays (height, width). Without it the grid itself is returned unchanged, as by a resize.
    """
    side = round(embedding.shape[1] ** 0.5)
    if (height, width) == (side, side) and not excess:
        return embedding
    grid = embedding.reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
    if excess:
        factors = (height + excess) / side, (width + excess) / side
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic", align_corners=False)
    else:
        grid = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
    return grid.flatten(2).transpose(1, 2).to(embedding.dtype)
