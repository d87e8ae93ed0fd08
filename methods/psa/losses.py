"""PSA's training step: cross-entropies of affinities over pairs of cells (section 3.2; reference: train_aff.py)."""

from collections.abc import Callable

import torch
from torch import Tensor

from common.masks.pairs import PairLabels, pair_directions, pair_labels
from common.train.step import TrainingStep
from methods.psa.affinity import AffinityNet, pair_affinity

LOSS_TERMS = ("bg", "fg", "neg")
EPSILON = 1e-5  # of the logarithms and of the counts


class PSAStep(TrainingStep):
    """Model and losses as one module that maps a batch to losses; what DistributedDataParallel wraps."""

    terms = LOSS_TERMS

    def __init__(self, model: AffinityNet, radius: int, gather: Callable[[Tensor], Tensor] = lambda rows: rows) -> None:
        """Composes the step.

        Args:
            radius: of the pairs, in cells.
            gather: concatenates tensors of all processes in rank order: counts are those of the whole micro-batch.
        """
        super().__init__()
        self.model = model
        self.radius = radius
        self._gather = gather

    def forward(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """One training step's losses.

        Args:
            images: (B, 3, S, S), ImageNet-normalised.
            targets: of the cells, uint8 (B, h, w): equal where cells belong together, 0 background, 255 ignore.

        Returns:
            ``total`` to minimise and the terms `LOSS_TERMS`, as of `affinity_losses`.
        """
        directions = pair_directions(self.radius)
        affinity = pair_affinity(self.model(images), directions, self.radius)
        return affinity_losses(affinity, pair_labels(targets, directions, self.radius), self._gather)


def affinity_losses(
    affinity: Tensor, pairs: PairLabels, gather: Callable[[Tensor], Tensor] = lambda rows: rows
) -> dict[str, Tensor]:
    """Cross-entropies averaged over all background, all foreground and all negative pairs of the batch.

    Args:
        affinity: (B, D, h', w') in [0, 1].
        pairs: bool (B, D, h', w') each.
        gather: see `PSAStep`.

    Returns:
        ``bg``, ``fg``, ``neg`` and ``total`` = bg / 4 + fg / 4 + neg / 2. On several processes each is this process's
        share: the mean over the processes is the value of the whole batch.
    """
    counts = gather(torch.stack([label.sum() for label in pairs])[None])  # processes 3
    totals = counts.sum(0) + EPSILON
    world = len(counts)
    same = -(affinity + EPSILON).log()
    different = -(1 + EPSILON - affinity).log()
    background, foreground, negative = (
        (errors * label).sum() / total * world
        for errors, label, total in zip((same, same, different), pairs, totals, strict=True)
    )
    return {
        "bg": background, "fg": foreground, "neg": negative, "total": background / 4 + foreground / 4 + negative / 2,
    }  # fmt: skip
