"""The ViT segmenter: a vision transformer, and a decoder that gives every patch logits.

Symbols: B images, L = C + 1 labels (background first), D width, N = h*w patches.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.nets.layers import Block
from common.nets.load import Coverage
from common.nets.plain_vit import PlainViT
from common.nets.vit import unpadded
from common.tensors import size_of
from methods.vitseg.config import VitSegInferConfig, VitSegModelConfig


class LinearDecoder(nn.Module):
    """A linear layer on every patch token."""

    def __init__(self, dim: int, labels: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, labels)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, patches: Tensor) -> Tensor:
        """(B, N, D) to logits (B, N, L)."""
        return self.head(patches)


class MaskDecoder(nn.Module):
    """Segmenter's mask transformer (section 3.2): a token per label attends with the patches.

    A logit is the cosine of a patch's and a label's projected tokens, normalised over the labels.
    """

    def __init__(self, dim: int, heads: int, labels: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, dim)
        self.label_tokens = nn.Parameter(torch.zeros(1, labels, dim))
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.project_patches = nn.Linear(dim, dim, bias=False)
        self.project_labels = nn.Linear(dim, dim, bias=False)
        self.mask_norm = nn.LayerNorm(labels)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in (self.project_patches, self.project_labels):
            nn.init.normal_(layer.weight, std=dim**-0.5)
        nn.init.trunc_normal_(self.label_tokens, std=0.02)

    def forward(self, patches: Tensor) -> Tensor:
        """(B, N, D) to logits (B, N, L)."""
        count = patches.shape[1]
        tokens = torch.cat([self.embed(patches), self.label_tokens.expand(len(patches), -1, -1)], dim=1)
        for block in self.blocks:
            tokens, _ = block(tokens)
        tokens = self.norm(tokens)
        patches = F.normalize(self.project_patches(tokens[:, :count]), dim=-1)
        labels = F.normalize(self.project_labels(tokens[:, count:]), dim=-1)
        return self.mask_norm(patches @ labels.transpose(1, 2))


class VitSeg(nn.Module):
    """The network."""

    def __init__(self, config: VitSegModelConfig, labels: int) -> None:
        """Random weights.

        Args:
            labels: L, background included.
        """
        super().__init__()
        self.encoder = PlainViT(config)
        dim = self.encoder.embed_dim
        self.decoder: nn.Module = (
            LinearDecoder(dim, labels)
            if config.decoder == "linear"
            else MaskDecoder(dim, self.encoder.num_heads, labels, config.decoder_depth)
        )

    def load_imagenet(self, state: Mapping[str, Tensor]) -> Coverage:
        """Starts the encoder from a backbone's weights; the decoder stays random.

        Raises:
            UserError: they do not fit.
        """
        return self.encoder.load_imagenet(state)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, L, h, w) of images (B, 3, H, W); (B, L, H, W) where the image was padded to whole patches."""
        tokens, grid = self.encoder(images)
        logits = self.decoder(tokens[:, self.encoder.first_patch :])
        maps = logits.transpose(1, 2).unflatten(2, grid)
        return unpadded(maps, self.encoder.padded_size(maps, size_of(images)), size_of(images))


def logits_function(model: VitSeg, config: VitSegInferConfig) -> Callable[[Tensor], Tensor]:
    """The function of mask inference, images (b, 3, H, W) to logits: of whole images, or of windows."""
    if not config.window:
        return model
    stride = config.stride or max(2 * config.window // 3, 1)
    return lambda images: window_logits(model, images, config.window, stride)


def window_logits(logits_of: Callable[[Tensor], Tensor], images: Tensor, window: int, stride: int) -> Tensor:
    """Logits (B, L, H, W) of images (B, 3, H, W) as means over overlapping windows; of the image, if it is no larger.

    The last window of a row and of a column ends with the image.

    Args:
        logits_of: maps windows (b, 3, h, w) to logits of any size.
        window: side in pixels.
        stride: distance of two windows.
    """
    height, width = size_of(images)
    if max(height, width) <= window:
        return logits_of(images)
    total: Tensor | None = None
    count = images.new_zeros(1, 1, height, width)
    for top in _starts(height, window, stride):
        for left in _starts(width, window, stride):
            place = (..., slice(top, top + window), slice(left, left + window))
            part = images[place]
            logits = F.interpolate(logits_of(part).float(), size=part.shape[-2:], mode="bilinear", align_corners=False)
            if total is None:
                total = logits.new_zeros(len(images), logits.shape[1], height, width)
            total[place] += logits
            count[place] += 1
    assert total is not None
    return total / count


def _starts(length: int, window: int, stride: int) -> list[int]:
    last = max(length - window, 0)
    return [*range(0, last, stride), last]
