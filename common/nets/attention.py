"""Multi-head attention by the fused kernel, and head-averaged attention maps where they are requested."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

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


def attend(q: Tensor, k: Tensor, v: Tensor, request: MapRequest | None) -> tuple[Tensor, Tensor | None]:
    """Attends.

    Args:
        q: queries (B, heads, T, d), not scaled; ``k`` and ``v`` of the same shape.

    Returns:
        The heads' outputs (B, heads, T, d), and the softmax attention averaged over heads (B, rows, T) if requested.
    """
    if request is None:
        return F.scaled_dot_product_attention(q, k, v), None
    if request.into is not None:
        return _added_to(request.into, q, k, v), None
    if request.rows is None:
        return _explicit(q, k, v, request.detach)
    if request.rows == 1:  # once more beside the fused kernel: cheaper than joining it with the others
        out = F.scaled_dot_product_attention(q, k, v)
        return out, _weights(q[:, :, :1], k, request.detach)[1]
    # the requested rows explicitly, the others by the fused kernel
    first, others = q.split([request.rows, q.shape[2] - request.rows], dim=2)
    out, attention = _explicit(first, k, v, request.detach)
    return torch.cat([out, F.scaled_dot_product_attention(others, k, v)], dim=2), attention


def _explicit(q: Tensor, k: Tensor, v: Tensor, detach: bool) -> tuple[Tensor, Tensor]:
    attention, mean = _weights(q, k, detach)
    return attention.to(v.dtype) @ v, mean


def _weights(q: Tensor, k: Tensor, detach: bool) -> tuple[Tensor, Tensor]:
    """Attention of each head (B, h, rows, T), and its mean over them."""
    attention = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
    return attention, (attention.detach() if detach else attention).mean(1)


def _added_to(total: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The output; adds the head-averaged map to ``total``. On CPUs in strips of rows that stay in the cache."""
    batch, heads, count, width = q.shape
    q = q.to(v.dtype).flatten(0, 1)  # B*h T d
    k = k.to(v.dtype).transpose(-2, -1).flatten(0, 1)
    v = v.flatten(0, 1).contiguous()  # on CPUs the copy is less than a product with rows that lie apart
    out = v.new_empty(batch, count, heads, width)  # B T h d: joining the heads needs no copy
    strip = min(max(STRIP // (batch * heads * count), 1), count) if q.device.type == "cpu" else count
    memory = v.new_empty(batch * heads * strip * count)  # one for all strips: new ones take a seventh of the time
    for start in range(0, count, strip):
        rows = slice(start, min(start + strip, count))
        attention = memory[: len(q) * (rows.stop - start) * count].view(len(q), -1, count)  # B*h strip T
        torch.baddbmm(attention, q[:, rows], k, beta=0, alpha=width**-0.5, out=attention)  # scaled within the product
        torch.softmax(attention, dim=-1, out=attention)
        out[:, rows] = torch.bmm(attention, v).unflatten(0, (batch, heads)).transpose(1, 2)
        _add_mean(total[:, rows], attention.unflatten(0, (batch, heads)))
    return out.transpose(1, 2)


def _add_mean(total: Tensor, attention: Tensor) -> None:
    """Adds attention (B, h, rows, T), averaged over heads, to ``total`` (B, rows, T)."""
    batch, heads = attention.shape[:2]
    if total.device.type == "cpu" and total.dtype == attention.dtype:  # one product instead of a sum and an addition
        weights = total.new_full((batch, 1, heads), 1 / heads)
        total.view(batch, 1, -1).baddbmm_(weights, attention.view(batch, heads, -1))
    else:
        total.add_(attention.sum(1), alpha=1 / heads)
