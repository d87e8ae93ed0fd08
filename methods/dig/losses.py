"""DiG's training step: a pass over images and one over their denoised versions, five loss terms.

Attention maps are made in the epochs whose losses read refined CAMs: with gradients for the denoised images, without
for the images, whose refined CAM is a constant. In all other epochs the fused kernel runs.
"""

import contextlib
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from common.nets.attention import MapRequest
from common.nets.mctformer import Output, classification_loss
from common.seeds.cam import max_norm
from common.tensors import required, size_of, sum_of
from common.train.step import TrainingStep, weighted_sum
from methods.dig.config import LossConfig
from methods.dig.model import DiG, Fused

LOSS_TERMS = ("cls", "pred_diff", "cam", "cls_denoised", "rcam")


class DiGStep(TrainingStep):
    """Model and losses as one module that maps a batch to losses; what DistributedDataParallel wraps.

    The diffusion model is not part of it: its features and denoised images are inputs.
    """

    terms = LOSS_TERMS
    logits = ("cls", "pcls")

    def __init__(self, model: DiG, config: LossConfig) -> None:
        """Composes the step; LFCA is frozen if no loss trains it."""
        super().__init__()
        self.model = model
        self.config = config
        if model.has_lfca:
            for part in (model.LFCA0, model.LFCA1, model.diff_head_p):
                part.requires_grad_(config.trains_lfca())

    def forward(
        self, images: Tensor, labels: Tensor, epoch: int, features: Tensor | None = None, denoised: Tensor | None = None
    ) -> dict[str, Tensor]:
        """One training step's losses.

        Args:
            images: (B, 3, S, S), ImageNet-normalised.
            labels: multi-hot (B, C).
            epoch: from 0.
            features: X (B, K*F, h, w), in the epochs where `LossConfig.uses_features`.
            denoised: (B, 3, S, S), ImageNet-normalised, in the epochs where `LossConfig.uses_denoised`.

        Returns:
            ``total`` to minimise, the terms `LOSS_TERMS` before their weights (a term that is off is 0), and detached
            ``logits_cls``, ``logits_pcls`` (B, C) of the images.
        """
        plain, queries, second = self._passes(images, denoised, epoch, features is not None)
        fused = None
        if features is not None:
            with contextlib.nullcontext() if self.config.trains_lfca() else torch.no_grad():
                fused = self.model.fuse(features, queries, size_of(plain.cams))
        terms = loss_terms(plain, fused, second, labels, self.config, epoch)
        weights = dict(zip(LOSS_TERMS, self.config.weights, strict=True))
        logits = {"logits_cls": plain.cls.detach(), "logits_pcls": plain.pcls.detach()}
        return {"total": weighted_sum(terms, weights), **terms, **logits}

    def _passes(
        self, images: Tensor, denoised: Tensor | None, epoch: int, wants_queries: bool
    ) -> tuple[Output, list[Tensor], Output | None]:
        """Outputs of images, LFCA's queries, and outputs of the denoised images."""
        maps = self.config.compares_rcams(epoch)
        count = len(images)
        query_rows = count if wants_queries else 0
        request = MapRequest() if maps else None
        if denoised is not None and self.config.merge_passes:
            both, queries = self.model.training_pass(torch.cat([images, denoised]), request, query_rows)
            return rows_of(both, slice(count)), queries, rows_of(both, slice(count, None))
        constant = MapRequest(detach=True) if maps else None
        plain, queries = self.model.training_pass(images, constant, query_rows)
        return plain, queries, None if denoised is None else self.model.training_pass(denoised, request)[0]


def rows_of(output: Output, rows: slice) -> Output:
    """The output of some images of a pass."""
    attention = None if output.attention is None else output.attention[rows]
    return replace(output, cls=output.cls[rows], pcls=output.pcls[rows], cams=output.cams[rows], attention=attention)


def loss_terms(
    plain: Output, fused: Fused | None, denoised: Output | None, labels: Tensor, config: LossConfig, epoch: int
) -> dict[str, Tensor]:
    """The terms before their weights, under the names of `LOSS_TERMS`; a term that is off is 0.

    Args:
        plain: outputs of the images.
        fused: LFCA's outputs, if a loss reads them.
        denoised: outputs of the denoised images, if a loss reads them.
        labels: multi-hot (B, C).
    """
    weight_cls, weight_pred, _, weight_denoised, _ = config.weights
    terms = dict.fromkeys(LOSS_TERMS, plain.cls.new_zeros((), dtype=torch.float32))
    if weight_cls:
        terms["cls"] = classification_loss(plain.cls, plain.pcls, labels)
    if weight_pred:
        terms["pred_diff"] = prediction_loss(
            plain, required(fused, "LFCA's output"), labels, config.temperature, config.alpha
        )
    present = labels[:, :, None, None]  # B C 1 1
    if config.compares_cams(epoch):
        cams = plain.cams.float()
        target = max_norm(required(fused, "LFCA's output").cams.float()).detach()
        if cams.shape != target.shape:
            cams = F.interpolate(cams, size=target.shape[-2:], mode="bilinear", align_corners=False)
        terms["cam"] = ((target - max_norm(cams)) * present).abs().mean()
    if weight_denoised:
        second = required(denoised, "pass over denoised images")
        terms["cls_denoised"] = classification_loss(second.cls, second.pcls, labels)
    if config.compares_rcams(epoch):
        target = max_norm(plain.rcams.float()).detach()
        found = max_norm(required(denoised, "pass over denoised images").rcams.float())
        terms["rcam"] = ((target - found) * present).abs().mean()
    return terms


def prediction_loss(plain: Output, fused: Fused, labels: Tensor, temperature: float, alpha: float) -> Tensor:
    """L_pred_diff: LFCA's logits learn from the labels and from the classifier's logits (eq. 6, as in the code)."""
    distance = sum_of(
        distillation(teacher, student, temperature)
        for teacher, student in ((plain.cls, fused.cls), (plain.pcls, fused.pcls))
    )
    return alpha * classification_loss(fused.cls, fused.pcls, labels) + (1 - alpha) * temperature**2 / 2 * distance


def distillation(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL divergence from the student's to the teacher's softened probabilities, a scalar.

    Both are [p, 1 - p] with p = softmax(logits / T) over classes; the divergence is summed over these 2C entries and
    averaged over images.

    Args:
        teacher: logits (B, C); no gradient.
        student: logits (B, C).
        temperature: T.
    """
    target = log_probabilities(teacher.detach().float() / temperature)
    return F.kl_div(log_probabilities(student.float() / temperature), target, reduction="batchmean", log_target=True)


def log_probabilities(logits: Tensor) -> Tensor:
    """log [p, 1 - p] (B, 2C) with p = softmax of logits (B, C), finite in value and gradient for all finite logits.

    Where p rounds to 1, the reference's log of 1 - p is -inf and its loss NaN. For p above 0.5 this takes the share of
    all other classes; else log1p(-p), as the share is a difference of two sums, whose rounding counts if p is small.
    """
    whole = logits.logsumexp(1, keepdim=True)
    own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    # The lowest number instead of -inf: with a single class there is no other, and 0 * inf would be NaN again.
    others = logits[:, None].masked_fill(own, torch.finfo(logits.dtype).min).logsumexp(2)  # B C
    p = (logits - whole).exp()
    rest = torch.where(p > 0.5, others - whole, torch.log1p(-p.clamp(max=0.5)))
    return torch.cat([logits - whole, rest], dim=1)
