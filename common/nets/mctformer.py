"""MCTformer-V2 (CVPR 2022), which several methods train: a DeiT with one class token per class and a CAM head.

Symbols: B batch, C classes, D width, N = h*w patches, L blocks, T tokens: of the classes, registers if the backbone has
any, patches.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.nets.attention import MapRequest
from common.nets.load import Coverage, load_checked
from common.nets.options import ViTConfig
from common.nets.pretrained import backbone_state
from common.nets.vit import ClassMaps, ViTBackbone, refine
from common.tensors import required, size_of, sum_of

GRID_EXCESS = 0.1  # added to either side of the patch grid where the resize of position embeddings is given as a factor


@dataclass
class Output:
    """The result of a pass; products of maps are only computed when read.

    Attributes:
        cls: class-token logits (B, C).
        pcls: patch logits (B, C).
        cams: relu(S), patch CAMs (B, C, h, w).
        attention: head-averaged attention summed over layers (B, T, T), or None where it was not requested.
        class_attention_weight: see `ViTBackbone`.
        first_patch: place of the first patch among the T tokens.
    """

    cls: Tensor
    pcls: Tensor
    cams: Tensor
    attention: Tensor | None
    class_attention_weight: float
    first_patch: int

    @property
    def mtatt(self) -> Tensor:
        """M, class-to-patch attention (B, C, h, w)."""
        count = self.cams.shape[1]
        attention = required(self.attention, "attention sum in this output: the pass had no MapRequest")
        return (self.class_attention_weight * attention[:, :count, self.first_patch :]).view_as(self.cams)

    @property
    def patch_attention(self) -> Tensor:
        """P, patch-to-patch attention (B, N, N), a sum over layers; a row is a query."""
        attention = required(self.attention, "attention sum in this output: the pass had no MapRequest")
        return attention[:, self.first_patch :, self.first_patch :]

    @property
    def fcams(self) -> Tensor:
        """F = M * relu(S), fused CAMs (B, C, h, w)."""
        return self.mtatt * self.cams

    @property
    def rcams(self) -> Tensor:
        """P F, refined CAMs (B, C, h, w)."""
        return refine(self.patch_attention, self.fcams.flatten(2)).view_as(self.cams)


class MCTformer(ViTBackbone):
    """The network, under the parameter names of the released checkpoints.

    The last block's tokens go to the heads as they are: ``norm`` is in the checkpoints, but is not applied.

    Attributes:
        not_of_imagenet: beginnings of the names of the parts that start at random.
    """

    not_of_imagenet: tuple[str, ...] = ("head.",)

    def __init__(self, config: ViTConfig, num_classes: int) -> None:
        """Random weights.

        Args:
            num_classes: C, without background.
        """
        super().__init__(config)
        self.num_classes = self.num_tokens = num_classes
        self.cls_token = nn.Parameter(torch.zeros(1, num_classes, self.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, num_classes + self.grid**2, self.embed_dim))
        self.head = nn.Conv2d(self.embed_dim, num_classes, 3, padding=1)  # PyTorch's initialisation, as the reference's
        self.norm = self.last_norm().requires_grad_(False)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.settle_positions(self.pos_embed)

    def load_imagenet(self, state: Mapping[str, Tensor]) -> Coverage:
        """Starts from an ImageNet DeiT: its one class token and that token's position are copied for every class.

        Raises:
            UserError: it is no DeiT with one class token, or of another size.
        """
        usable = backbone_state(state, self)
        positions = usable["pos_embed"]
        usable["cls_token"] = usable["cls_token"].expand(-1, self.num_tokens, -1)
        usable["pos_embed"] = torch.cat([positions[:, :1].expand(-1, self.num_tokens, -1), positions[:, 1:]], dim=1)
        return load_checked(self, usable, "the ImageNet checkpoint", self.not_of_imagenet)

    def positions(self, height: int, width: int) -> Tensor:
        """Position embeddings (1, C+N, D) of an image of height x width pixels; the class tokens' are never resized."""
        of_classes = self.pos_embed[:, : self.num_tokens]
        of_patches = self.pos_embed[:, self.num_tokens :]
        # The reference resizes by stated factors, and also where only the pixels left over make an image oblong.
        grid = self.grid_of(height, width)
        is_native = height == width and grid[0] == self.grid
        resized = of_patches if is_native else self.resize_positions(of_patches, *grid, GRID_EXCESS)
        return torch.cat([of_classes, resized], dim=1)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (B, T, D) of images (B, 3, H, W), class tokens first, and the patch grid (h, w)."""
        patches = self.embed_patches(images)  # B D h w
        class_tokens = self.cls_token.to(patches.dtype).expand(len(images), -1, -1)
        tokens = torch.cat([class_tokens, patches.flatten(2).transpose(1, 2)], dim=1)
        return self.enter(tokens + self.positions(*size_of(images))), size_of(patches)

    def run_blocks(
        self,
        tokens: Tensor,
        grid: tuple[int, int],
        blocks: range,
        request: MapRequest | None = None,
        total: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Runs a range of blocks.

        Args:
            tokens: (B, T, D).
            grid: (h, w) of the patches.
            request: the attention maps to sum; None for none.
            total: the sum over the blocks before, if any.

        Returns:
            Tokens (B, T, D), and the sum of head-averaged attention over all blocks so far (B, T, T).
        """
        layers = self.blocks_at(grid)
        for index in blocks:
            tokens, attention = layers[index](tokens, request)
            if attention is not None:
                total = attention if total is None else total + attention
        return tokens, total

    def pool(self, maps: Tensor) -> Tensor:
        """Patch logits (B, C) of the patch maps S (B, C, h, w), before their ReLU."""
        return maps.mean((-2, -1))

    def read_heads(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits (B, C), patch logits (B, C) and CAMs relu(S) (B, C, h, w) of the final tokens (B, T, D)."""
        maps = self.head(tokens[:, self.first_patch :].transpose(1, 2).unflatten(2, grid))  # S: B C h w
        return tokens[:, : self.num_tokens].mean(-1), self.pool(maps), maps.relu()

    def output(self, tokens: Tensor, grid: tuple[int, int], attention: Tensor | None = None) -> Output:
        """The heads' outputs for the final tokens, with the pass's attention sum."""
        return Output(*self.read_heads(tokens, grid), attention, self.class_attention_weight, self.first_patch)

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class and patch logits, each (B, C), of images (B, 3, H, W); no attention map is made."""
        tokens, grid = self.embed(images)
        return self.read_heads(self.run_blocks(tokens, grid, range(self.depth))[0], grid)[:2]

    def forward(self, images: Tensor) -> Output:
        """A whole pass with all of its maps."""
        tokens, grid = self.embed(images)
        tokens, attention = self.run_blocks(tokens, grid, range(self.depth), MapRequest())
        return self.output(tokens, grid, attention)

    def foreground_maps(self, kind: str) -> Callable[[Tensor], ClassMaps]:
        """The function of seed inference, of images (B, 3, H, W); see `ViTBackbone.seed_maps`."""

        def maps(images: Tensor) -> ClassMaps:
            found = self.seed_maps(*self.embed(images), kind)
            return found._replace(padded=self.padded_size(found.cams, size_of(images)))

        return maps


def classification_loss(cls: Tensor, pcls: Tensor, labels: Tensor) -> Tensor:
    """Multi-label soft-margin losses of class and patch logits (B, C), added."""
    return sum_of(F.multilabel_soft_margin_loss(logits.float(), labels) for logits in (cls, pcls))
