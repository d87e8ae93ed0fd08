"""DeiT/ViT backbone with timm's parameter names, any number of class tokens, and attention maps on request.

The fused kernel computes attention wherever no map is requested. A method requests the maps of each block
(`MapRequest`), and gets them averaged over the heads.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.nets.options import ViTConfig
from common.run.errors import UserError

STRIP = 2**20  # attention weights per strip on CPUs where a map is summed: 4 MB


class MapRequest(NamedTuple):
    """The part of a block's head-averaged attention that is requested as a map.

    Attributes:
        rows: number of leading queries (the class tokens); None for all.
        into: a tensor (B, T, T) to add the map of all rows to, which is then not returned; not with gradients.
        detach: whether the returned map carries no gradient; the tokens do.
    """

    rows: int | None = None
    into: Tensor | None = None
    detach: bool = False


# Three small layers under timm's names, written here: timm takes seconds to import, and inference needs nothing else
# of it.


class DropPath(nn.Module):
    """Stochastic depth: in training, drops the whole branch of an image with a probability and scales up the others."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """The branch's output (B, ...)."""
        if not self.training or self.drop_prob == 0:
            return x
        kept = 1 - self.drop_prob
        mask = x.new_empty((len(x),) + (1,) * (x.ndim - 1)).bernoulli_(kept)
        if kept > 0:
            mask.div_(kept)
        return x * mask


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, parameters named ``fc1`` and ``fc2``."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, T, D) to tokens (B, T, D)."""
        return self.fc2(self.act(self.fc1(x)))


class PatchEmbed(nn.Module):
    """Non-overlapping patches to vectors, parameters named ``proj``."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to maps (B, D, h, w); a remainder of less than a patch is dropped."""
        return self.proj(images)


class Attention(nn.Module):
    """Multi-head self-attention, parameters named ``qkv`` and ``proj`` as in timm."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, request: MapRequest | None = None) -> tuple[Tensor, Tensor | None]:
        """Attends.

        Args:
            x: tokens (B, T, D).

        Returns:
            Tokens (B, T, D), and the softmax attention averaged over heads (B, rows, T) if requested.
        """
        batch, count, dim = x.shape
        q, k, v = (
            self.qkv(x).reshape(batch, count, 3, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4)
        )  # B h T d
        attention = None
        if request is None:
            out = F.scaled_dot_product_attention(q, k, v)
        elif request.into is not None:
            out = self._added_to(request.into, q, k, v)
        elif request.rows is None:
            out, attention = self._explicit(q, k, v, request.detach)
        elif request.rows == 1:  # once more beside the fused kernel: cheaper than joining it with the others
            out = F.scaled_dot_product_attention(q, k, v)
            attention = self._weights(q[:, :, :1], k, request.detach)[1]
        else:  # the requested rows explicitly, the others by the fused kernel
            first, others = q.split([request.rows, count - request.rows], dim=2)
            out, attention = self._explicit(first, k, v, request.detach)
            out = torch.cat([out, F.scaled_dot_product_attention(others, k, v)], dim=2)
        return self.proj(out.transpose(1, 2).reshape(batch, count, dim)), attention

    def _explicit(self, q: Tensor, k: Tensor, v: Tensor, detach: bool) -> tuple[Tensor, Tensor]:
        attention, mean = self._weights(q, k, detach)
        return attention.to(v.dtype) @ v, mean

    def _weights(self, q: Tensor, k: Tensor, detach: bool) -> tuple[Tensor, Tensor]:
        """Attention of each head (B, h, rows, T), and its mean over them."""
        attention = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        return attention, (attention.detach() if detach else attention).mean(1)

    def _added_to(self, total: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The output; adds the head-averaged map to ``total``. On CPUs in strips of rows that stay in the cache."""
        batch, heads, count, _ = q.shape
        q = (q * self.scale).contiguous()
        k = k.transpose(-2, -1)
        v = v.contiguous()
        out = q.new_empty(batch, count, heads, q.shape[-1])  # B T h d: joining the heads needs no copy
        strip = max(STRIP // (batch * heads * count), 1) if q.device.type == "cpu" else count
        for start in range(0, count, strip):
            rows = slice(start, start + strip)
            attention = q[:, :, rows] @ k  # B h strip T
            attention = torch.softmax(attention, dim=-1, out=attention)
            out[:, rows] = (attention @ v).transpose(1, 2)
            total[:, rows].add_(attention.sum(1), alpha=1 / heads)
        return out.transpose(1, 2)


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm1 x), then x + mlp(norm2 x), each with stochastic depth."""

    def __init__(self, dim: int, num_heads: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor, request: MapRequest | None = None) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, T, D) to tokens, and the attention map if requested (see `Attention.forward`)."""
        attended, attention = self.attn(self.norm1(x), request)
        x = x + self.drop_path(attended)
        return x + self.drop_path(self.mlp(self.norm2(x))), attention


class ViTBackbone(nn.Module):
    """Patch embedding and blocks; a method adds its K class tokens, which come first, position embeddings and heads.

    Attributes:
        grid: patches per side at the training size.
        num_tokens: K, set by the method.
        class_attention_weight: factor of the sum over layers of class-to-patch attention in seeds.
    """

    num_tokens: int
    class_attention_weight = 1.0

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.embed_dim, self.depth, self.num_heads = config.dimensions()
        self.patch_size = config.patch_size
        self.grid = config.img_size // config.patch_size
        self.patch_embed = PatchEmbed(config.patch_size, self.embed_dim)
        rates = torch.linspace(0, config.drop_path, self.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(self.embed_dim, self.num_heads, rate) for rate in rates)
        for block in self.blocks:
            for module in block.modules():
                if isinstance(module, nn.Linear):
                    nn.init.trunc_normal_(module.weight, std=0.02)
                    nn.init.zeros_(module.bias)

    def embed_patches(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to a patch map (B, D, H // p, W // p); a remainder at the right and bottom is dropped.

        Raises:
            UserError: the image is smaller than a patch.
        """
        if min(images.shape[-2:]) < self.patch_size:
            raise UserError(
                f"an image of {images.shape[-1]}x{images.shape[-2]} pixels is smaller than one patch "
                f"({self.patch_size})"
            )
        return self.patch_embed(images)

    def read_heads(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits (B, C), patch logits (B, C) and CAMs (B, K, h, w) of the last block's tokens (B, K+N, D)."""
        raise NotImplementedError

    @torch.no_grad()
    def seed_maps(self, tokens: Tensor, grid: tuple[int, int], kind: str) -> Tensor:
        """The maps that become seeds, (B, K, h, w), with attention summed over all layers.

        Args:
            tokens: (B, K+N, D) entering the first block.
            kind: ``rcams`` = attn @ (mtatt * F), the methods' own; ``fcams`` = mtatt * F; ``cams`` = F.
        """
        count = self.num_tokens
        size = tokens.shape[1]
        total = tokens.new_zeros(len(tokens), size if kind == "rcams" else count, size, dtype=torch.float32)
        for block in self.blocks:
            if kind == "rcams":  # class rows and patch rows are sums over the same layers: one sum of whole maps
                tokens, _ = block(tokens, MapRequest(into=total))
            elif kind == "fcams":
                tokens, attention = block(tokens, MapRequest(count))
                total += attention
            else:
                tokens, _ = block(tokens)
        cams = self.read_heads(tokens, grid)[2]
        if kind == "cams":
            return cams
        fused = self.class_attention_weight * total[:, :count, count:] * cams.flatten(2)  # B K N
        return (refine(total[:, count:, count:], fused) if kind == "rcams" else fused).unflatten(2, grid)


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
