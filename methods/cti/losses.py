"""CTI's training step: two forward passes, five loss terms (paper sections 3.1-3.3).

Pass A runs both views as one batch; pass B runs the two infused passes (intra-image, cross-image) as one batch. That is
the reference's four passes, with attention maps only where a loss reads them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.cam import max_norm
from common.config import option
from methods.cti.memory import TokenMemory
from methods.cti.model import CTI, Maps, Trace, refine

LOSS_TERMS = ("cls", "pcls", "cls_view2", "pcls_view2", "bg", "intra", "cross")


@dataclass
class LossConfig:
    """The losses (paper symbols: docs/cti.md)."""

    weights: list[float] = option([0.1, 1.0, 1.0], "W: weights of background, intra-image and cross-image loss; 0 switches one off.", flag="--W")
    aux_after_epoch: int = option(-1, "The three auxiliary losses are on in epochs (from 0) after this one; -1: always.")
    swap_idx: int = option(3, "s: class tokens are taken after this block and infused before the next.")
    n_layers: int = option(6, "How many last layers the class-to-patch attention of the background loss sums.")
    memory_size: int = option(30, "Tokens kept for each class; the cross loss counts once every class has so many.")
    detach_bg_cams: bool = option(False, "Whether the foreground side of the background loss detaches F (the reference does for COCO).")
    share_prefix: bool = option(
        False, "Fast: infused passes start from pass 1's tokens instead of repeating blocks 0..s (with stochastic depth: shared draws)."
    )
    skip_idle_cross: bool = option(True, "Fast: leave out the cross pass while the memory is not full (its value is then only logged).")


class CTIStep(nn.Module):
    """Model and memory as one module that maps a batch to losses; what DistributedDataParallel wraps.

    Attributes:
        memory: the class-token memory, shared by all processes.
    """

    def __init__(
        self, model: CTI, config: LossConfig, memory: TokenMemory, gather: Callable[[Tensor], Tensor] = lambda rows: rows
    ) -> None:
        """Composes the step.

        Args:
            gather: concatenates tensors of all processes in rank order, so that all push the same tokens.
        """
        super().__init__()
        self.model, self.config, self.memory, self._gather = model, config, memory, gather

    def forward(self, view1: Tensor, view2: Tensor, labels: Tensor, epoch: int) -> dict[str, Tensor]:
        """One training step's losses.

        Args:
            view1: I, (B, 3, S, S).
            view2: another view of the same images, of the same shape.
            labels: multi-hot (B, C).
            epoch: from 0.

        Returns:
            ``total`` to minimise, the weighted terms of `LOSS_TERMS` as scalars (a term that is off is 0; ``cross`` is
            reported, but only part of the total when the memory is full), and detached ``logits_cls``, ``logits_pcls``
            (B, C) of view 1.
        """
        model, config, batch = self.model, self.config, len(view1)
        weight_bg, weight_intra, weight_cross = config.weights if epoch > config.aux_after_epoch else (0.0, 0.0, 0.0)
        tokens, grid = model.embed(torch.cat([view1, view2]))
        trace = model.run_blocks(tokens, self._background_maps(batch) if weight_bg else Maps(), keep={config.swap_idx})
        cls, pcls, cams = model.read_heads(trace.tokens, grid)
        targets = torch.cat([labels, labels])
        terms = dict.fromkeys(LOSS_TERMS, cls.new_zeros((), dtype=torch.float32))
        for name, logits in (("cls", cls), ("pcls", pcls)):
            per_image = F.multilabel_soft_margin_loss(logits.float(), targets, reduction="none")
            terms[name], terms[f"{name}_view2"] = per_image[:batch].mean(), per_image[batch:].mean()
        cams1 = cams[:batch]
        if weight_bg:
            foreground, background = background_maps(trace, cams1, labels, config.detach_bg_cams)
            terms["bg"] = weight_bg * (1 - foreground - background).abs().mean()
        counts_cross: Tensor | bool = False
        if weight_cross:
            infusion = self._cross_infusion(trace.after[config.swap_idx], labels)
            counts_cross = self.memory.is_full()
        # Reading is_full on the host waits for the GPU once; it is only done where that saves a pass.
        runs_cross = bool(weight_cross) and (not config.skip_idle_cross or bool(counts_cross))
        if weight_intra or runs_cross:
            swapped = self._infused_passes(
                view1, tokens, trace, grid, intra=bool(weight_intra), cross=infusion if runs_cross else None
            )
            normal = max_norm(cams1.float())
            if weight_intra:
                terms["intra"] = weight_intra * (normal - max_norm(swapped["intra"].float())).abs().mean()
            if runs_cross:
                terms["cross"] = weight_cross * (normal[:, 1:] - max_norm(swapped["cross"].float())[:, 1:]).abs().mean()
        total = sum(terms[name] for name in LOSS_TERMS[:-1])
        if runs_cross:
            total = total + torch.where(counts_cross, terms["cross"], 0.0)
        return {"total": total, **terms, "logits_cls": cls[:batch].detach(), "logits_pcls": pcls[:batch].detach()}

    def _background_maps(self, batch: int) -> Maps:
        """What the background loss reads: only of view 1."""
        depth, after_swap = self.model.depth, self.config.swap_idx + 1
        return Maps(
            class_to_patch=range(depth - self.config.n_layers, depth), patch_to_patch=range(after_swap, depth), images=(0, batch)
        )

    @torch.no_grad()
    def _cross_infusion(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Pushes this batch's tokens, then Z (B, C, D): the memory's mean for present classes, the own token for absent ones."""
        own = tokens[: len(labels), 1 : self.model.num_tokens].float()
        normed = F.layer_norm(own, own.shape[-1:], eps=1e-5)
        self.memory.push(self._gather(normed), self._gather(labels))
        return torch.where(labels[..., None] > 0, self.memory.means(), own)

    def _infused_passes(
        self, view1: Tensor, tokens: Tensor, trace: Trace, grid: tuple[int, int], intra: bool, cross: Tensor | None
    ) -> dict[str, Tensor]:
        """Pass B: view 1 again, with view 2's tokens (``intra``) and with the memory's (``cross``), as one batch.

        Returns:
            ``intra``: F (B, K, h, w). ``cross``: mtatt_as * F (B, K, h, w).
        """
        model, swap_idx, batch = self.model, self.config.swap_idx, len(view1)
        kinds = ["intra"] * intra + ["cross"] * (cross is not None)
        kept = trace.after[swap_idx]
        if self.config.share_prefix:
            entering = kept[:batch].repeat(len(kinds), 1, 1)
        else:  # the same embedding, through blocks 0..s once more (own draws of stochastic depth)
            repeated = tokens[:batch].repeat(len(kinds), 1, 1)
            for block in model.blocks[: swap_idx + 1]:
                repeated = block(repeated)[0]
            entering = repeated
        parts = []
        if intra:
            parts.append(kept[batch:, : model.num_tokens])
        if cross is not None:
            # The background token is not infused: averaging it with itself changes neither value nor gradient.
            own_background = entering[-batch:, :1]
            parts.append(torch.cat([own_background, cross.to(own_background.dtype)], dim=1))
        late = range(swap_idx + 1, model.depth)
        maps = Maps(class_to_patch_late=late, images=(len(entering) - batch, len(entering))) if cross is not None else Maps()
        result = model.run_blocks(entering, maps, torch.cat(parts), swap_idx, first=swap_idx + 1)
        cams = model.read_heads(result.tokens, grid)[2]
        found = {kind: cams[i * batch : (i + 1) * batch] for i, kind in enumerate(kinds)}
        if cross is not None:
            found["cross"] = result.class_to_patch_late.view_as(found["cross"]) * found["cross"]
        return found


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
    attention, flat = trace.class_to_patch.float(), cams.flatten(2).float()  # B K N
    foreground = attention[:, 1:] * (flat[:, 1:].detach() if detach_cams else flat[:, 1:]) * labels[..., None]
    sources = torch.stack([foreground.amax(1), attention[:, 0] * flat[:, 0]], dim=1)  # B 2 N
    # In float64 as in the reference: the following division by a small range would amplify float32 rounding tenfold.
    precise = torch.float32 if cams.device.type == "mps" else torch.float64
    refined = max_norm(refine(trace.patch_to_patch.to(precise), sources).unflatten(2, cams.shape[-2:])).float()
    return refined[:, :1], refined[:, 1:]
