"""IRN's losses on affinities and displacements (IRNet sections 4.3 and 4.4; reference: net/resnet50_irn.py).

Symbols: B images, h x w maps, D directions, P = (h - rf)(w - 2 rf) sources. All sums run over the global batch.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from common.masks.pairs import Direction, PairLabels, pair_labels
from common.tensors import tensor_on
from common.train.step import TrainingStep
from methods.irn.config import LossConfig
from methods.irn.model import IRN
from methods.irn.paths import pair_displacements, path_directions, path_maximum

LOSS_TERMS = ("aff_bg", "aff_fg", "aff_neg", "dp_fg", "dp_bg")
EPSILON = 1e-5  # of the logarithms and of the denominators


class IRNStep(TrainingStep):
    """Model and losses as one module that maps a batch to losses; what DistributedDataParallel wraps."""

    terms = LOSS_TERMS

    def __init__(self, model: IRN, config: LossConfig, gather: Callable[[Tensor], Tensor] = lambda rows: rows) -> None:
        """Composes the step.

        Args:
            gather: concatenates tensors of all processes in rank order: counts are those of the whole micro-batch.
        """
        super().__init__()
        self.model = model
        self.radius = config.radius
        self._gather = gather

    def forward(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """One training step's losses.

        Args:
            images: (B, 3, S, S), ImageNet-normalised.
            targets: label maps at 1/4 of the size, uint8 (B, h, w): 0 background, class index + 1, 255 ignore.

        Returns:
            ``total`` to minimise and the terms `LOSS_TERMS`. On several processes each is this process's share: the
            mean over the processes is the value of the whole batch.
        """
        edge, displacement = self.model(images)
        directions = path_directions(self.radius)
        pairs = pair_labels(targets, directions, self.radius)
        affinity = affinities(edge.float(), directions, self.radius)  # B D h' w'
        return irn_losses(affinity, displacement.float(), pairs, directions, self.radius, self._gather)


def affinities(edge: Tensor, directions: Sequence[Direction], radius: int) -> Tensor:
    """1 - the largest boundary probability on each path: (B, D, h', w') of logits (B, 1, h, w)."""
    return 1 - path_maximum(edge[:, 0].sigmoid(), directions, radius)


def irn_losses(
    affinity: Tensor, displacement: Tensor, pairs: PairLabels, directions: Sequence[Direction], radius: int,
    gather: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> dict[str, Tensor]:  # fmt: skip
    """All losses of a batch.

    Args:
        affinity: (B, D, h', w') in [0, 1].
        displacement: (B, 2, h, w).
        pairs: bool (B, D, h', w') each.
        gather: see `IRNStep`.

    Returns:
        ``total``, and `LOSS_TERMS` before their factors in it.
    """
    counts = torch.stack([label.sum() for label in pairs])[None]  # 1 3, exact
    everywhere = gather(counts)  # processes 3
    ratio = functools.partial(_ratio, counts=everywhere.sum(0), world=len(everywhere))
    attraction = -(affinity + EPSILON).log()
    repulsion = -(1 + EPSILON - affinity).log()
    moved = pair_displacements(displacement, directions, radius)  # B 2 D h' w'
    target = tensor_on(directions, moved.device, moved.dtype).T.view(1, 2, -1, 1, 1)
    terms = {
        "aff_bg": ratio(attraction, pairs.background, 0),
        "aff_fg": ratio(attraction, pairs.foreground, 1),
        "aff_neg": ratio(repulsion, pairs.negative, 2),
        "dp_fg": ratio((moved - target).abs().sum(1), pairs.foreground, 1, components=2),
        "dp_bg": ratio(moved.abs().sum(1), pairs.background, 0, components=2),
    }
    affinity_loss = ((terms["aff_bg"] + terms["aff_fg"]) / 2 + terms["aff_neg"]) / 2
    return {"total": affinity_loss + (terms["dp_fg"] + terms["dp_bg"]) / 2, **terms}


def _ratio(values: Tensor, pairs: Tensor, kind: int, *, counts: Tensor, world: int, components: int = 1) -> Tensor:
    """This process's share of the mean of values (B, D, h', w') over all pairs of a kind in the whole batch.

    Args:
        counts: pairs of each kind on all processes.
        world: processes, over which gradients are averaged.
        components: number of values summed for each pair.
    """
    return (values * pairs).sum() * world / (components * counts[kind].to(values.dtype) + EPSILON)
