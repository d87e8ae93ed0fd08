"""PCSS's training step: up to three forward passes, five loss terms.

Attention maps are made where a loss reads them: with gradients in the mixed pass, without in the plain one (whose
refined CAM is constant), not at all in the suppressed one.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from common.nets.attention import MapRequest
from common.nets.mctformer import Output, classification_loss
from common.run.processes import Processes
from common.seeds.cam import max_norm
from common.tensors import required, size_of
from common.train.step import Batch, TrainingStep, weighted_sum
from methods.pcss.config import LossConfig
from methods.pcss.frequency import filtered, spectrum
from methods.pcss.importance import FrequencyImportance
from methods.pcss.model import PCSS

LOSS_TERMS = ("cls", "cls_suppressed", "cam_suppressed", "cls_mixed", "cam_mixed")


class PCSSStep(TrainingStep):
    """Model and importance masks as one module that maps a batch to losses; what DistributedDataParallel wraps."""

    terms = LOSS_TERMS
    logits = ("cls", "pcls")

    def __init__(
        self,
        model: PCSS,
        config: LossConfig,
        importance: FrequencyImportance,
        gather: Callable[[Tensor], Tensor] = lambda rows: rows,
        rank: int = 0,
    ) -> None:
        """Composes the step.

        Args:
            gather: concatenates tensors of all processes in rank order: the partner of a mix may be in any of them.
            rank: this process's place among them.

        Raises:
            UserError: the network has too few blocks for ``mpc_idx``.
        """
        super().__init__()
        config.check_depth(model.depth)
        self.model = model
        self.config = config
        self.importance = importance
        self._gather = gather
        self._rank = rank

    def forward(self, images: Tensor, labels: Tensor, epoch: int, partners: Tensor) -> dict[str, Tensor]:
        """One training step's losses.

        Args:
            images: x, (B, 3, S, S), ImageNet-normalised.
            labels: multi-hot (B, C).
            epoch: from 0.
            partners: pi, a permutation of the whole micro-batch, all processes' parts in rank order.

        Returns:
            ``total`` to minimise, the terms `LOSS_TERMS` before their weights (a term that is off is 0), and detached
            ``logits_cls``, ``logits_pcls`` (B, C) of the plain pass.
        """
        model = self.model
        config = self.config
        weight_suppressed, weight_mixed = config.weights
        compares_mixed = weight_mixed > 0 and epoch >= config.mpc_cam_start_epoch
        tokens, grid = model.embed(images)  # the mixed pass begins with them, too

        # Plain pass: its attention is a constant, unless the mixed pass goes on from its first blocks
        request = MapRequest() if compares_mixed else None
        constant = MapRequest(detach=True) if compares_mixed else None
        split = config.mpc_idx + 1
        early = request if config.share_prefix else constant
        middle, attention = model.run_blocks(tokens, grid, range(split), early)
        plain_attention = required(attention, "attention sum").detach() if compares_mixed else None
        last, plain_attention = model.run_blocks(middle, grid, range(split, model.depth), constant, plain_attention)
        plain = model.output(last, grid, plain_attention)
        terms = dict.fromkeys(LOSS_TERMS, plain.cls.new_zeros((), dtype=torch.float32))
        terms["cls"] = classification_loss(plain.cls, plain.pcls, labels)

        if weight_suppressed > 0 and self.importance.is_used_in(epoch):
            suppressed = self._suppressed_pass(images, labels)
            terms["cls_suppressed"] = classification_loss(suppressed.cls, suppressed.pcls, labels)
            difference = (max_norm(plain.cams.float()) - max_norm(suppressed.cams.float())).abs()  # B C h w
            has_labels = labels.any(1)[:, None, None, None]
            terms["cam_suppressed"] = (difference * has_labels).mean()

        if weight_mixed > 0:
            magnitude = self._mixed_magnitude(model.patch_map(middle, grid), partners)
            if not config.share_prefix:
                middle, attention = model.run_blocks(tokens, grid, range(split), request)
            middle = model.mixed(middle, grid, magnitude)
            last, attention = model.run_blocks(middle, grid, range(split, model.depth), request, attention)
            mixed = model.output(last, grid, attention)
            terms["cls_mixed"] = classification_loss(mixed.cls, mixed.pcls, labels)
            if compares_mixed:
                target = max_norm(plain.rcams.float()).detach()
                terms["cam_mixed"] = (target - max_norm(mixed.rcams.float())).abs().mean()
        logits = {"logits_cls": plain.cls.detach(), "logits_pcls": plain.pcls.detach()}
        total = weighted_sum(terms, {"cam_suppressed": weight_suppressed, "cam_mixed": weight_mixed})
        return {"total": total, **terms, **logits}

    def draw_partners(self, batch: Batch, processes: Processes) -> Tensor:
        """pi: a permutation of the whole micro-batch, the same on all processes and in a resumed run."""
        draw = derangement if self.config.no_fixed_points else torch.randperm
        return draw(len(batch.labels) * processes.world, generator=batch.draws)

    def _suppressed_pass(self, images: Tensor, labels: Tensor) -> Output:
        """The pass over images without their classes' shortcut frequencies; it makes no attention maps."""
        tokens, grid = self.model.embed(self.suppress(images, labels))
        return self.model.output(self.model.run_blocks(tokens, grid, range(self.model.depth))[0], grid)

    @torch.no_grad()
    def suppress(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images (B, 3, S, S) weighted in the spectrum by the mean of 1 - hif over their labels, if they have any."""
        reduced = filtered(spectrum(images), self.importance.kept(labels)[:, None], size_of(images))
        return torch.where(labels.any(1)[:, None, None, None], reduced, images)

    def _mixed_magnitude(self, maps: Tensor, partners: Tensor) -> Tensor:
        """G = r a + (1 - r) a' of patch maps (B, D, h, w): own magnitude, with gradient, and the partner's, without."""
        own = spectrum(maps).abs()  # a: B D h w//2+1
        ratio = self.config.mpc_org_ratio
        first = self._rank * len(own)
        partner = self._gather(own.detach())[partners[first : first + len(own)].to(own.device, non_blocking=True)]
        return ratio * own + (1 - ratio) * partner


def derangement(count: int, generator: torch.Generator) -> Tensor:
    """A random permutation without fixed points, each equally likely, int64 (count,); a single image keeps itself."""
    while True:  # about e draws on average
        partners = torch.randperm(count, generator=generator)
        if count < 2 or not bool((partners == torch.arange(count)).any()):
            return partners
