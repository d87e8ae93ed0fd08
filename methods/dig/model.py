"""DiG's classifier: MCTformer-V2 with Min-Max-K pooling, and in training two LFCA that fuse diffusion features."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.nets.attention import MapRequest
from common.nets.mctformer import MCTformer, Output
from common.nets.options import ViTConfig
from methods.dig.config import check_lfca_depth
from methods.dig.lfca import LFCA, RELEASED_FEATURES, FeatureShape, convolved_inputs

TOP = 3  # K of Min-Max-K
TRAINING_ONLY = ("LFCA0.", "LFCA1.", "diff_head_p.")


class Fused(NamedTuple):
    """The outputs of LFCA and its head for diffusion features and the classifier's queries.

    Attributes:
        cls: class-token logits (B, C): ``diff_cls``.
        pcls: patch logits (B, C): ``diff_pcls``.
        cams: diffusion CAMs (B, C, h', w'): ``cam_diff``.
    """

    cls: Tensor
    pcls: Tensor
    cams: Tensor


class DiG(MCTformer):
    """The network, under the parameter names of the released checkpoints.

    ``LFCA0``, ``LFCA1`` and ``diff_head_p`` serve training alone; without them it is a plain MCTformer-V2 with another
    pooling, and gives the same seeds.
    """

    not_of_imagenet = ("head.", *TRAINING_ONLY)

    def __init__(self, config: ViTConfig, num_classes: int, features: FeatureShape | None = RELEASED_FEATURES) -> None:
        """Random weights.

        Args:
            num_classes: C, without background.
            features: shape of the diffusion features; None for a network without LFCA.

        Raises:
            UserError: the network is too small for LFCA.
        """
        super().__init__(config, num_classes)
        self.has_lfca = features is not None
        if features is None:
            return
        check_lfca_depth(self.depth)
        self.LFCA0 = LFCA(self.embed_dim, features)
        self.LFCA1 = LFCA(self.embed_dim, features)
        self.diff_head_p = nn.Sequential(
            nn.Conv2d(features.channels, features.channels, 3, padding=1), nn.ReLU(),
            nn.Conv2d(features.channels, num_classes, 1),
        )  # fmt: skip

    def pool(self, scores: Tensor) -> Tensor:
        """Min-Max-K pooling: patch logits (B, C) of maps S (B, C, h, w) before their ReLU.

        The mean of the three largest values of relu(S) minus the mean of the three largest of relu(-S); all values of
        maps with fewer than three patches.
        """
        flat = scores.flatten(2)  # B C N
        top = min(TOP, flat.shape[2])
        return flat.relu().topk(top).values.mean(-1) - flat.neg().relu().topk(top).values.mean(-1)

    def queries(self, index: int, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """q (B, C+N, D) of a block for the tokens that enter it, heads side by side, not scaled, without gradient."""
        with torch.no_grad():
            q = self.queries_at(grid, index)(tokens)
        return q if self.reg_token is None else torch.cat([q[:, : self.num_tokens], q[:, self.first_patch :]], dim=1)

    def training_pass(
        self, images: Tensor, request: MapRequest | None = None, query_rows: int = 0
    ) -> tuple[Output, list[Tensor]]:
        """A pass for training.

        Args:
            images: (B, 3, H, W).
            request: the attention maps to sum; None for none.
            query_rows: number of the first images whose queries LFCA needs.

        Returns:
            The output, and queries (rows, C+N, D) of the last block and of the block before; none for 0 rows.
        """
        tokens, grid = self.embed(images)
        split = self.depth - 2 if query_rows else self.depth
        queries: list[Tensor] = []
        tokens, total = self.run_blocks(tokens, grid, range(split), request)
        for index in range(split, self.depth):
            queries.insert(0, self.queries(index, tokens[:query_rows], grid))
            tokens, total = self.run_blocks(tokens, grid, range(index, index + 1), request, total)
        return self.output(tokens, grid, total), queries

    def fuse(self, features: Tensor, queries: Sequence[Tensor], grid: tuple[int, int]) -> Fused:
        """Diffusion logits and CAMs.

        Args:
            features: X (B, K*F, h', w').
            queries: of the last block, then of the block before, (B, C+N, D) each.
            grid: (h, w) of the N patches.
        """
        both = (self.LFCA0, self.LFCA1)
        convolved = convolved_inputs([lfca.diff_init for lfca in both], features)
        fused = [
            lfca(lfca.diff_init(*parts), q, self.num_tokens, grid)
            for lfca, parts, q in zip(both, convolved, queries, strict=True)
        ]
        classes, maps = (torch.stack(each).mean(0) for each in zip(*fused, strict=True))  # B C D, B F h' w'
        maps = self.diff_head_p(maps)  # B C h' w'
        return Fused(classes.mean(-1), self.pool(maps), maps.relu())


def without_lfca(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of a checkpoint that seeds need, which a `DiG` without LFCA loads strictly."""
    return {name: value for name, value in state.items() if not name.startswith(TRAINING_ONLY)}
