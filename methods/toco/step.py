"""ToCo's training step: one pass over two global views, CAMs of the first at several scales, a pass over local crops.

The CAM of the unflipped image at scale 1 comes from the first pass, and so do the class tokens that the teacher head
reads: the weights are the same. Losses that do not count yet are not computed, but their weights get gradients of zero,
as in the reference: AdamW goes on counting their steps and decays them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.tensors import size_of, sum_of
from common.train.step import TrainingStep, weighted_sum
from methods.toco.cams import multi_scale_cams
from methods.toco.config import EnergyConfig, LabelConfig, LossConfig
from methods.toco.crops import local_crops
from methods.toco.energy import energy_loss
from methods.toco.labels import affinity_mask, refined_label, roi_mask, uncertain_label
from methods.toco.losses import LossGroups, class_contrast, patch_contrast, segmentation_loss
from methods.toco.model import ToCo

LOSS_TERMS = ("cls", "cls_aux", "ptc", "ctc", "seg", "reg")


class ToCoStep(TrainingStep):
    """Model and losses as one module that maps a batch to losses; what DistributedDataParallel wraps."""

    terms = LOSS_TERMS
    logits = ("cls", "aux")

    def __init__(
        self, model: ToCo, config: LossConfig, labels: LabelConfig, energy: EnergyConfig, crop_size: int,
        gather: Callable[[Tensor], Tensor] = lambda rows: rows, rank: int = 0,
    ) -> None:  # fmt: skip
        """Composes the step.

        Args:
            crop_size: side of the local crops in pixels.
            gather: concatenates tensors of all processes in rank order: losses are normalised over groups of images.
            rank: this process's place among them.
        """
        super().__init__()
        self.model = model
        self.config = config
        self.labels = labels
        self.energy = energy
        self.crop_size = crop_size
        self.groups = LossGroups(config.group, gather, rank)

    def forward(
        self, main: Tensor, second: Tensor, source: Tensor, boxes: Tensor, labels: Tensor, step: int, picks: Tensor,
        most: int | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """One training step's losses; the teacher must have been updated before.

        Args:
            main: images and first global view, (B, 3, S, S), ImageNet-normalised.
            second: second global view, (B, 3, S, S).
            source: image of the local crops, (B, 3, S, S).
            boxes: place of the image in ``main``: top, bottom, left, right, (B, 4).
            labels: multi-hot (B, C).
            step: from 0.
            picks: draws that choose the crops, see `local_crops`.
            most: `most_labels`, counted where the labels are on the CPU, too; None: see `refined_label`.

        Returns:
            ``total`` to minimise, the terms `LOSS_TERMS` before their weights (a term that is not computed is 0), and
            detached ``logits_cls``, ``logits_aux`` (B, C).
        """
        model = self.model
        config = self.config
        contrasts = config.contrasts(step)
        segments = config.segments(step)
        computes_contrasts = contrasts or config.compute_inactive
        computes_seg = segments or config.compute_inactive
        features = model.encoder(torch.cat([main, second]) if computes_contrasts else main)
        own = features.first(len(main))
        cls, cls_aux = model.logits(own)
        terms = dict.fromkeys(LOSS_TERMS, cls.new_zeros((), dtype=torch.float32))
        terms["cls"] = F.multilabel_soft_margin_loss(cls.float(), labels)
        terms["cls_aux"] = F.multilabel_soft_margin_loss(cls_aux.float(), labels)
        if computes_contrasts or computes_seg:
            cams, cams_aux = multi_scale_cams(model.cams, main, config.cam_scales, model.raw_cams(own))
        if computes_contrasts:
            terms["ptc"] = self._patch_contrast(own.patches, cams_aux, boxes, labels)
            terms["ctc"] = self._class_contrast(features.cls_token, cams_aux, source, labels, picks)
        if computes_seg:
            target = self._targets(main, cams_aux if step <= config.aux_cam_until else cams, labels, boxes, most)
            logits = model.decoder(own.patches).float()  # B C+1 h w
            logits = F.interpolate(logits, main.shape[-2:], mode="bilinear", align_corners=False)
            terms["seg"] = segmentation_loss(logits, target, self.groups)
            terms["reg"] = self._energy(logits, main, target, boxes)
        weights = {
            "cls": 1.0, "cls_aux": 1.0, "ptc": config.ptc * contrasts, "ctc": config.ctc * contrasts,
            "seg": config.seg * segments, "reg": config.reg * segments,
        }  # fmt: skip
        total = weighted_sum(terms, weights)
        if not computes_contrasts:
            total = total + _zero_of(model.proj_head)
        if not computes_seg:
            total = total + _zero_of(model.decoder)
        return {"total": total, **terms, "logits_cls": cls.detach(), "logits_aux": cls_aux.detach()}

    def _patch_contrast(self, patches: Tensor, cams_aux: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """PTC between patches (B, D, h, w), by labels from the auxiliary CAM (B, C, S, S)."""
        small = F.interpolate(cams_aux, patches.shape[-2:], mode="bilinear", align_corners=False)
        label = uncertain_label(small, labels, boxes, self.labels, size_of(cams_aux))
        return patch_contrast(patches, affinity_mask(label), self.groups)

    def _class_contrast(
        self, cls_tokens: Tensor, cams_aux: Tensor, source: Tensor, labels: Tensor, picks: Tensor
    ) -> Tensor:
        """CTC between the global views' class tokens (2 B, D) and the class tokens of local crops of ``source``."""
        model = self.model
        crops, flags = self._crops(source, cams_aux, labels, picks)
        student = model.proj_head(torch.cat([cls_tokens, model.encoder(crops).cls_token]))
        teacher = model.proj_head_t(cls_tokens.detach())
        return class_contrast(student, teacher, flags, self.config.temperature)

    # A plan of the step, whose tensors have no values, replaces the following three.

    def _targets(self, images: Tensor, cams: Tensor, labels: Tensor, boxes: Tensor, most: int | None) -> Tensor:
        """The decoder's targets (B, S, S) from CAMs (B, C, S, S)."""
        return refined_label(images, cams, labels, boxes, self.labels, most)

    def _energy(self, logits: Tensor, images: Tensor, targets: Tensor, boxes: Tensor) -> Tensor:
        """The energy loss of logits (B, C + 1, S, S), a scalar."""
        return energy_loss(logits, images, targets, boxes, self.energy)

    def _crops(self, source: Tensor, cams_aux: Tensor, labels: Tensor, picks: Tensor) -> tuple[Tensor, Tensor]:
        """Local crops (n B, 3, s, s) of ``source``, and the flags of all views (B, 2 + n)."""
        return local_crops(source, roi_mask(cams_aux, labels, self.labels), picks, self.crop_size)[:2]


def _zero_of(module: nn.Module) -> Tensor:
    """A zero that gives every trainable parameter of a module a gradient of exactly zero."""
    return 0.0 * sum_of(parameter.sum() for parameter in module.parameters() if parameter.requires_grad)
