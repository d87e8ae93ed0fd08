"""CTI's training step: two forward passes, five loss terms (paper sections 3.1-3.3).

Four passes as in the reference; attention maps are made only in the blocks and rows that a loss reads, elsewhere the
fused kernel runs. (Two batches of twice the size give the same numbers, but were slower on CPUs: the larger activations
leave the caches, see docs/benchmarks.md.) Symbols as in `methods.cti.model`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from common.nets.vit import refine
from common.seeds.cam import max_norm
from common.tensors import size_of
from common.train.step import TrainingStep, weighted_sum
from methods.cti.config import LossConfig
from methods.cti.memory import TokenMemory
from methods.cti.model import CTI, Maps, Output, Trace, collected

LOSS_TERMS = ("cls", "pcls", "cls_view2", "pcls_view2", "bg", "intra", "cross")


class CTIStep(TrainingStep):
    """Model and memory as one module that maps a batch to losses; what DistributedDataParallel wraps.

    Attributes:
        memory: the class-token memory, shared by all processes.
    """

    terms = LOSS_TERMS
    logits = ("cls", "pcls")

    def __init__(
        self,
        model: CTI,
        config: LossConfig,
        memory: TokenMemory,
        gather: Callable[[Tensor], Tensor] = lambda rows: rows,
    ) -> None:
        """Composes the step.

        Args:
            gather: concatenates tensors of all processes in rank order, so that all push the same tokens.

        Raises:
            UserError: the network has too few blocks for the layers that the configuration names.
        """
        super().__init__()
        config.check_depth(model.depth)
        self.model = model
        self.config = config
        self.memory = memory
        self._gather = gather

    def forward(self, view1: Tensor, view2: Tensor, labels: Tensor, epoch: int) -> dict[str, Tensor]:
        """One training step's losses.

        Args:
            view1: I, (B, 3, S, S).
            view2: another view of the same images, of the same shape.
            labels: multi-hot (B, C).
            epoch: from 0.

        Returns:
            ``total`` to minimise, the terms `LOSS_TERMS` before their weights (a term that is off is 0; ``cross`` is no
            part of the total until the memory is full), and detached ``logits_cls``, ``logits_pcls`` (B, C) of view 1.
        """
        model = self.model
        config = self.config
        weight_bg, weight_intra, weight_cross = config.weights if epoch > config.aux_after_epoch else (0.0, 0.0, 0.0)
        late = range(config.swap_idx + 1, model.depth)
        bg_maps = (
            Maps(class_to_patch=range(model.depth - config.n_layers, model.depth), patch_to_patch=late)
            if weight_bg
            else Maps()
        )
        class_tokens = model.class_tokens()
        tokens1, grid = model.embed(view1, class_tokens)  # the infused passes begin with them, too
        tokens2, _ = model.embed(view2, class_tokens)
        pass1 = self._pass(tokens1, grid, bg_maps)
        pass2 = self._pass(tokens2, grid, Maps())
        terms = dict.fromkeys(LOSS_TERMS, pass1.cls.new_zeros((), dtype=torch.float32))
        for suffix, output in (("", pass1), ("_view2", pass2)):
            terms[f"cls{suffix}"] = F.multilabel_soft_margin_loss(output.cls.float(), labels)
            terms[f"pcls{suffix}"] = F.multilabel_soft_margin_loss(output.pcls.float(), labels)
        if weight_bg:
            foreground, background = background_maps(pass1.trace, pass1.cams, labels, config.detach_bg_cams)
            terms["bg"] = (1 - foreground - background).abs().mean()
        normal = max_norm(pass1.cams.float())
        if weight_intra:
            swapped = self._infused_pass(tokens1, pass1, self._swapped_tokens(pass2), Maps())
            terms["intra"] = (normal - max_norm(swapped.cams.float())).abs().mean()
        total = weighted_sum(terms, {"bg": weight_bg, "intra": weight_intra})
        if weight_cross:
            infusion = self._cross_infusion(self._swapped_tokens(pass1), labels)
            is_full = self.memory.is_full()
            if is_full or not config.skip_idle_cross:
                swapped = self._infused_pass(tokens1, pass1, infusion, Maps(class_to_patch_late=late))
                difference = normal[:, 1:] - max_norm(swapped.fcams_as.float())[:, 1:]
                terms["cross"] = difference.abs().mean()
                total = total + weight_cross * terms["cross"] if is_full else total
        return {"total": total, **terms, "logits_cls": pass1.cls.detach(), "logits_pcls": pass1.pcls.detach()}

    def _pass(self, tokens: Tensor, grid: tuple[int, int], maps: Maps) -> Output:
        """A pass without infusion; keeps the tokens after block s."""
        trace = self.model.run_blocks(tokens, grid, maps, keep={self.config.swap_idx})
        return Output(*self.model.read_heads(trace.tokens, grid), trace)

    def _infused_pass(self, tokens: Tensor, plain: Output, infusion: Tensor, maps: Maps) -> Output:
        """A pass with Z infused before block s + 1; with ``share_prefix`` it goes on from the plain pass's block s."""
        swap_idx = self.config.swap_idx
        first = 0
        if self.config.share_prefix:
            tokens = plain.trace.after[swap_idx]
            first = swap_idx + 1
        grid = size_of(plain.cams)
        trace = self.model.run_blocks(tokens, grid, maps, infusion, swap_idx, first)
        return Output(*self.model.read_heads(trace.tokens, grid), trace)

    def _swapped_tokens(self, output: Output) -> Tensor:
        """ctk[s]: class tokens after block s (B, K, D)."""
        return output.trace.after[self.config.swap_idx][:, : self.model.num_tokens]

    @torch.no_grad()
    def _cross_infusion(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Pushes ctk[s] (B, K, D); returns Z (B, C, D): the memory's mean for present classes, else the own token."""
        own = tokens[:, 1:].float()
        normed = F.layer_norm(own, own.shape[-1:], eps=1e-5)
        self.memory.push(self._gather(normed), self._gather(labels))
        return torch.where(labels[..., None] > 0, self.memory.means(), own)


def background_maps(trace: Trace, cams: Tensor, labels: Tensor, detach_cams: bool = False) -> tuple[Tensor, Tensor]:
    """r_fg and r_bg of the background loss: refined, normalised maps of "any labelled class" and of background.

    Args:
        trace: with ``class_to_patch`` and ``patch_to_patch`` of these images.
        cams: F (B, K, h, w).
        labels: multi-hot (B, C).
        detach_cams: whether the foreground side treats F as constant.

    Returns:
        Two tensors (B, 1, h, w).
    """
    attention = collected(trace.class_to_patch).float()  # B K N
    flat = cams.flatten(2).float()  # B K N
    foreground = attention[:, 1:] * (flat[:, 1:].detach() if detach_cams else flat[:, 1:]) * labels[..., None]
    sources = torch.stack([foreground.amax(1), attention[:, 0] * flat[:, 0]], dim=1)  # B 2 N
    # In float64 as in the reference: the following division by a small range would amplify float32 rounding tenfold.
    precise = torch.float32 if cams.device.type == "mps" else torch.float64
    affinity = collected(trace.patch_to_patch).to(precise)
    refined = max_norm(refine(affinity, sources).unflatten(2, cams.shape[-2:])).float()
    return refined[:, :1], refined[:, 1:]
