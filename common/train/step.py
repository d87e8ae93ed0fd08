"""The two objects of a training loop: a batch, and the step module that computes its losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class TrainingStep(nn.Module):
    """Model and losses as one module, which DistributedDataParallel and torch.compile wrap.

    Its forward pass maps a batch to a dictionary of losses: ``total``, which is minimised, each of ``terms`` before its
    weight (a term that is off is 0), and ``logits_NAME`` (B, C), detached, for each of ``logits``.

    Attributes:
        terms: names of the losses that are logged besides their total.
        logits: names of the logits whose agreement with the labels is logged.
    """

    terms: Sequence[str] = ()
    logits: Sequence[str] = ()


@dataclass(frozen=True)
class Batch:
    """This process's part of a micro-batch, on the device.

    Attributes:
        views: the stacked tensors of the script's transform: random views of the images, each (B, 3, S, S).
        labels: multi-hot (B, C); (B, 0) where the images have none.
        host_labels: the labels on the CPU, for decisions of the host.
        indices: the images' places in the training list (B,).
        epoch: from 0.
        step: completed steps since the start of the run.
        is_first: whether this is the step's first micro-batch.
        is_last: whether this is the step's last micro-batch.
        draws: a CPU generator, the same on all processes and in a resumed run, for draws over the whole micro-batch.
    """

    views: list[Tensor]
    labels: Tensor
    host_labels: Tensor
    indices: Tensor
    epoch: int
    step: int
    is_first: bool
    is_last: bool
    draws: torch.Generator


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The sum of a step's terms, each times its weight; a term that is not named in ``weights`` has weight 1."""
    first, *others = [weights.get(name, 1.0) * term for name, term in terms.items()]
    return sum(others, start=first)
