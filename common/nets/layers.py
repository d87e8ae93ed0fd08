"""The layers of a DeiT, under timm's parameter names."""

import torch.nn.functional as F
from torch import Tensor, nn

from common.nets.attention import MapRequest, attend

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
        out, attention = attend(q, k, v, request)
        return self.proj(out.transpose(1, 2).reshape(batch, count, dim)), attention

    def queries(self, x: Tensor) -> Tensor:
        """q (B, T, D) of tokens, heads side by side, not scaled."""
        dim = x.shape[-1]
        return F.linear(x, self.qkv.weight[:dim], self.qkv.bias[:dim])


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

    def queries(self, x: Tensor) -> Tensor:
        """q (B, T, D) of tokens that enter the block, heads side by side, not scaled."""
        return self.attn.queries(self.norm1(x))
