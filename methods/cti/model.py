"""CTI's network: a DeiT whose K = C + 1 class tokens (background first) come from one ImageNet class token.

Symbols: B batch, C foreground classes, K = C + 1, D width, N = h*w patches, L blocks.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from common.nets.attention import MapRequest
from common.nets.load import Coverage, load_checked
from common.nets.options import ViTConfig
from common.nets.pretrained import backbone_state
from common.nets.vit import ClassMaps, ViTBackbone, refine
from common.tensors import required, size_of

# Parts that start at random, or are made from others.
NOT_OF_IMAGENET = ("head.", "tokenizer.", "bg_token", "pos_embed_cls", "pos_embed_pat")


@dataclass
class Trace:
    """A record of a pass through the blocks: tokens after chosen blocks, and sums of attention over layers.

    Attributes:
        tokens: tokens (B, K+N, D) after the last block.
        after: tokens (B, K+N, D) after the blocks to keep, by block.
        class_to_patch: "mtatt", sum over layers of head-averaged attention, class rows, patch columns (B, K, N).
        class_to_patch_late: "mtatt_as", the same over other layers.
        patch_to_patch: "attn", the same, patch rows and columns (B, N, N).
    """

    tokens: Tensor
    after: dict[int, Tensor] = field(default_factory=dict)
    class_to_patch: Tensor | None = None
    class_to_patch_late: Tensor | None = None
    patch_to_patch: Tensor | None = None


def collected(total: Tensor | None) -> Tensor:
    """An attention sum of a `Trace`.

    Raises:
        ValueError: the pass did not collect it.
    """
    return required(total, "such attention sum: the Maps of this pass name no block for it")


@dataclass(frozen=True)
class Maps:
    """The attention sums that a pass collects, each as the range of its blocks (empty: not collected)."""

    class_to_patch: range = range(0)
    class_to_patch_late: range = range(0)
    patch_to_patch: range = range(0)

    def request(self, block: int, num_class_tokens: int) -> MapRequest | None:
        """The attention maps of block number ``block`` that these sums need."""
        if block in self.patch_to_patch:
            return MapRequest()
        if block in self.class_to_patch or block in self.class_to_patch_late:
            return MapRequest(num_class_tokens)
        return None


class CTI(ViTBackbone):
    """The class-token-infusion network (paper section 3; parameter names of the released checkpoints)."""

    def __init__(self, config: ViTConfig, num_classes: int) -> None:
        """Random weights.

        Args:
            num_classes: C, without background.
        """
        super().__init__(config)
        dim = self.embed_dim
        self.num_classes = num_classes
        self.num_tokens = num_classes + 1
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.bg_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed_cls = nn.Parameter(torch.zeros(1, self.num_tokens, dim))
        self.pos_embed_pat = nn.Parameter(torch.zeros(1, self.grid**2, dim))
        # Tokenizer and head keep PyTorch's default initialisation, as the reference's do.
        self.tokenizer = nn.Sequential(nn.Linear(dim, 5 * dim), nn.ReLU(), nn.Linear(5 * dim, self.num_tokens * dim))
        self.head = nn.Conv2d(dim, self.num_tokens, 3, padding=1)
        # Never used, but in the released checkpoints: kept so that both kinds of files load strictly.
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid**2 + 1, dim), requires_grad=False)
        self.norm = self.last_norm().requires_grad_(False)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self._spread_position_embedding(self.pos_embed)
        self.settle_positions(self.pos_embed_pat)

    def load_imagenet(self, state: Mapping[str, Tensor]) -> Coverage:
        """Starts from an ImageNet DeiT: equal names are copied, its position embedding is spread over all tokens.

        Raises:
            UserError: it is no DeiT with one class token, or of another size.
        """
        usable = backbone_state(state, self)
        coverage = load_checked(self, usable, "the ImageNet checkpoint", NOT_OF_IMAGENET)
        self._spread_position_embedding(self.pos_embed)
        return coverage

    @torch.no_grad()
    def _spread_position_embedding(self, pos_embed: Tensor) -> None:
        self.pos_embed_cls.copy_(pos_embed[:, :1].expand_as(self.pos_embed_cls))
        self.pos_embed_pat.copy_(pos_embed[:, 1:])

    def class_tokens(self) -> Tensor:
        """T: the class tokens with their position embedding (K, D); they do not depend on the image."""
        made = self.tokenizer(self.cls_token.flatten(1)).reshape(self.num_tokens, -1)
        base = torch.cat([self.bg_token[0], self.cls_token[0].expand(self.num_classes, -1)])  # K D
        return made + base + self.pos_embed_cls[0]

    def embed(self, images: Tensor, class_tokens: Tensor | None = None) -> tuple[Tensor, tuple[int, int]]:
        """Tokens [T; P] (B, K+N, D) of images (B, 3, H, W), and the patch grid (h, w).

        Args:
            class_tokens: T, where several passes share it (the tokenizer holds up to 60 M weights); None computes it.
        """
        patches = self.embed_patches(images)  # B D h w
        height, width = size_of(patches)
        patches = patches.flatten(2).transpose(1, 2) + self.resize_positions(self.pos_embed_pat, height, width)
        class_tokens = self.class_tokens() if class_tokens is None else class_tokens
        tokens = torch.cat([class_tokens.to(patches.dtype).expand(len(images), -1, -1), patches], dim=1)
        return self.enter(tokens), (height, width)

    def run_blocks(
        self,
        tokens: Tensor,
        grid: tuple[int, int],
        maps: Maps = Maps(),
        infusion: Tensor | None = None,
        swap_idx: int = -1,
        first: int = 0,
        keep: Iterable[int] = (),
    ) -> Trace:
        """Runs blocks ``first`` to the last.

        Args:
            tokens: (B, T, D) entering block ``first``.
            grid: (h, w) of the patches.
            maps: attention sums to collect.
            infusion: Z, tokens averaged into the class tokens before block ``swap_idx + 1``: (B, K, D), or (B, C, D) to
                leave the background token alone.
            swap_idx: s.
            keep: blocks whose output tokens are kept in ``after``.
        """
        trace = Trace(tokens)
        count = self.num_tokens
        blocks = self.blocks_at(grid)
        for index in range(first, self.depth):
            if infusion is not None and index == swap_idx + 1:
                tokens = infused(tokens, infusion, count)
            tokens, attention = blocks[index](tokens, maps.request(index, count))
            if index in keep:
                trace.after[index] = tokens
            if attention is not None:
                _accumulate(trace, attention, index, maps, count, self.first_patch)
        trace.tokens = tokens
        return trace

    def read_heads(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits, patch logits and CAMs of the final tokens.

        Returns:
            ``cls`` (B, C): mean of each foreground token. ``pcls`` (B, C): spatial mean of M. ``cams`` F = relu(M)
            (B, K, h, w), background first.
        """
        cls = tokens[:, 1 : self.num_tokens].mean(-1)
        patches = tokens[:, self.first_patch :].transpose(1, 2).unflatten(2, grid)  # B D h w
        maps = self.head(patches)  # M: B K h w
        return cls, maps[:, 1:].mean((-2, -1)), maps.relu()

    def forward(
        self, images: Tensor, infusion: Tensor | None = None, swap_idx: int | None = None, n_layers: int = 6
    ) -> "Output":
        """The whole network with all of its maps (the reference's forward; training and inference ask for less).

        Args:
            images: (B, 3, H, W), ImageNet-normalised.
            infusion: Z (B, K, D) or (B, C, D), or None.
            swap_idx: s; also selects the layers of ``attn`` (all, if None).
            n_layers: number of last layers that ``mtatt`` sums.
        """
        tokens, grid = self.embed(images)
        first = 0 if swap_idx is None else swap_idx + 1
        layers = range(first, self.depth)
        maps = Maps(range(self.depth - n_layers, self.depth), layers, layers)
        trace = self.run_blocks(
            tokens, grid, maps, infusion, -1 if swap_idx is None else swap_idx, keep=range(self.depth)
        )
        return Output(*self.read_heads(trace.tokens, grid), trace)

    @torch.no_grad()
    def foreground_maps(self, kind: str) -> Callable[[Tensor], ClassMaps]:
        """The function of seed inference, of images (B, 3, H, W); see `ViTBackbone.seed_maps`.

        The function holds the class tokens of the present weights.
        """
        class_tokens = self.class_tokens()

        def maps(images: Tensor) -> ClassMaps:
            found = self.seed_maps(*self.embed(images, class_tokens), kind)
            return found._replace(cams=found.cams[:, 1:], padded=self.padded_size(found.cams, size_of(images)))

        return maps


@dataclass
class Output:
    """The result of a pass in the paper's terms; products of maps are computed when they are read.

    Attributes:
        cls: class-token logits (B, C).
        pcls: patch logits (B, C).
        cams: F (B, K, h, w).
        trace: attention sums and tokens.
    """

    cls: Tensor
    pcls: Tensor
    cams: Tensor
    trace: Trace

    @property
    def mtatt(self) -> Tensor:
        """Class-to-patch attention of the last layers (B, K, h, w)."""
        return collected(self.trace.class_to_patch).view_as(self.cams)

    @property
    def mtatt_as(self) -> Tensor:
        """Class-to-patch attention of the layers after s (B, K, h, w)."""
        return collected(self.trace.class_to_patch_late).view_as(self.cams)

    @property
    def attn(self) -> Tensor:
        """Patch-to-patch attention (B, N, N); a row is a query."""
        return collected(self.trace.patch_to_patch)

    @property
    def fcams(self) -> Tensor:
        """mtatt * F."""
        return self.mtatt * self.cams

    @property
    def fcams_as(self) -> Tensor:
        """mtatt_as * F."""
        return self.mtatt_as * self.cams

    @property
    def rcams(self) -> Tensor:
        """attn @ (mtatt * F)."""
        return refine(self.attn, self.fcams.flatten(2)).view_as(self.cams)


def infused(tokens: Tensor, infusion: Tensor, num_tokens: int) -> Tensor:
    """Averages Z, (B, K, D), or (B, C, D) for the foreground alone, into the class tokens of tokens (B, K+N, D)."""
    start = num_tokens - infusion.shape[1]
    mixed = (tokens[:, start:num_tokens] + infusion.to(tokens.dtype)) / 2
    return torch.cat([tokens[:, :start], mixed, tokens[:, num_tokens:]], dim=1)


def _accumulate(trace: Trace, attention: Tensor, index: int, maps: Maps, count: int, first: int) -> None:
    """Adds a layer's head-averaged attention (B, rows, T), patches from ``first`` on, to its sums."""

    def add(total: Tensor | None, part: Tensor) -> Tensor:
        return part if total is None else total + part

    if index in maps.class_to_patch:
        trace.class_to_patch = add(trace.class_to_patch, attention[:, :count, first:])
    if index in maps.class_to_patch_late:
        trace.class_to_patch_late = add(trace.class_to_patch_late, attention[:, :count, first:])
    if index in maps.patch_to_patch:
        trace.patch_to_patch = add(trace.patch_to_patch, attention[:, first:, first:])
