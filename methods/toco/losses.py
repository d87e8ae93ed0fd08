"""ToCo's losses: patch token contrast (PTC), class token contrast (CTC), segmentation, and how they are normalised.

The energy loss is in `methods.toco.energy`. Symbols: B images of this process, N = h*w patches, V views of an image.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from common.data.classes import IGNORE_LABEL
from common.tensors import sum_of
from methods.toco.config import check_group

SMALL = 1e-4  # of CTC's denominators


class LossGroups:
    """Ratios of sums over groups of images, averaged over the groups.

    The reference divides by counts over the images of one process (2), so its loss depends on the number of processes.
    Here a group is a run of ``size`` images of the whole micro-batch, on any processes: counts are gathered, sums stay
    on their process with their gradients.
    """

    def __init__(self, size: int, gather: Callable[[Tensor], Tensor] = lambda rows: rows, rank: int = 0) -> None:
        """Groups of ``size`` images; 0: the whole micro-batch is one.

        Args:
            gather: concatenates tensors of all processes in rank order.
            rank: this process's place among them.
        """
        self.size = size
        self._gather = gather
        self._rank = rank

    def mean_ratio(self, sums: Tensor, counts: Tensor, extra: float = 0.0) -> Tensor:
        """The mean over groups of (sum of sums) / (sum of counts + extra), a scalar; a group without counts gives 0.

        On several processes it is this process's share: the mean over the processes is the mean over the groups.

        Args:
            sums: of each image of this process, (B,).
            counts: of each image, (B,); no gradient.
            extra: added to every group's count.

        Raises:
            UserError: the micro-batch does not divide into groups.
        """
        everywhere = self._gather(counts.detach().float())
        size = self.size or len(everywhere)
        check_group(size, len(everywhere))
        totals = everywhere.view(-1, size).sum(1) + extra  # one a group
        first = self._rank * len(sums)
        own = totals.clamp(min=1).repeat_interleave(size)[first : first + len(sums)]
        world = len(everywhere) // len(sums)
        return (sums / own).sum() * (world / len(totals))


def patch_contrast(patches: Tensor, affinity: Tensor, groups: LossGroups) -> Tensor:
    """PTC (section 3.2): tokens of one class become alike, tokens of different classes orthogonal; a scalar.

    1/2 (1 - sum over positive pairs of |cos| / (count + 1)) + 1/2 sum over negative pairs of |cos| / (count + 1).

    Args:
        patches: final patch tokens (B, D, h, w).
        affinity: 1 for pairs of one class, 0 for pairs of two, else not counted; (B, N, N).
    """
    tokens = F.normalize(patches.float().flatten(2), dim=1, eps=1e-8)  # B D N
    similarity = (tokens.transpose(1, 2) @ tokens).abs()  # B N N
    attraction, repulsion = (
        groups.mean_ratio((similarity * pairs).sum((1, 2)), pairs.sum((1, 2)), extra=1.0)
        for pairs in (affinity == 1, affinity == 0)
    )
    return 0.5 * (1 - attraction) + 0.5 * repulsion


def class_contrast(student: Tensor, teacher: Tensor, flags: Tensor, temperature: float) -> Tensor:
    """CTC (section 3.3): class tokens of an image's views against class tokens of its crops without objects; a scalar.

    With E_j = exp(teacher . student_j / temperature) and N the sum over negatives, each teacher view gives
    -log(E_j / (E_j + N + 1e-4)) for every positive j, and log(1 + N + 1e-4); computed from logarithms, as exponentials
    of dissimilar heads overflow.

    Args:
        student: outputs for all V views, the two global ones first, view-major (V * B, d).
        teacher: outputs for the two global views (2 * B, d); constant.
        flags: 1 for positive views, 0 for negative ones, (B, V).
    """
    count, views = flags.shape
    student = student.float().view(views, count, -1)
    teacher = teacher.detach().float().view(2, count, -1)
    similarities = torch.einsum("tbd,vbd->btv", teacher, student) / temperature  # B 2 V
    is_positive = flags.bool()[:, None]  # B 1 V
    floor = similarities.new_full((count, 2, 1), math.log(SMALL))
    dissimilar = torch.cat([similarities.masked_fill(is_positive, -torch.inf), floor], dim=2)
    negatives = dissimilar.logsumexp(2)  # log(N + 1e-4): B 2
    pulls = (F.softplus(negatives[..., None] - similarities) * is_positive).sum((1, 2))  # B
    # The last term is an accident of the reference's control flow; its numbers contain it.
    losses = (pulls + F.softplus(negatives).sum(1)) / 2 / (flags.sum(1) + SMALL)
    return losses.mean()


def segmentation_loss(logits: Tensor, targets: Tensor, groups: LossGroups) -> Tensor:
    """The average of the mean cross-entropies of background and of foreground pixels; a scalar.

    Args:
        logits: (B, C + 1, H, W).
        targets: (B, H, W), 255 is ignored; a kind without pixels counts 0 (in the reference: NaN).
    """
    errors = F.cross_entropy(logits.float(), targets, ignore_index=IGNORE_LABEL, reduction="none")  # B H W
    background = targets == 0
    foreground = (targets != 0) & (targets != IGNORE_LABEL)
    halves = (
        groups.mean_ratio((errors * pixels).sum((1, 2)), pixels.sum((1, 2))) for pixels in (background, foreground)
    )
    return 0.5 * sum_of(halves)
