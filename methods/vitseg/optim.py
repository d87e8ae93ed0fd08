"""The ViT segmenter's optimiser: AdamW in groups of one weight decay and one rate."""

import torch

from common.train.optim import has_weight_decay, layered
from methods.vitseg.config import VitSegOptimConfig
from methods.vitseg.model import VitSeg

NO_DECAY = ("encoder.cls_token", "encoder.reg_token", "encoder.pos_embed", "decoder.label_tokens")


def vitseg_optimizer(model: VitSeg, config: VitSegOptimConfig) -> torch.optim.AdamW:
    """AdamW over the trained parameters; vectors, biases, tokens and positions do not decay."""
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = name.startswith("decoder."), has_weight_decay(name, parameter, NO_DECAY)
            groups.setdefault(key, []).append(parameter)
    scaled = [
        {
            "params": parameters, "lr_scale": config.head_scale if is_decoder else 1.0,
            "weight_decay": config.weight_decay * decays,
        }
        for (is_decoder, decays), parameters in groups.items()
    ]  # fmt: skip
    return torch.optim.AdamW(
        layered(scaled, model, model.encoder.depth, config.layer_decay, "encoder."),
        lr=config.lr, betas=(config.betas[0], config.betas[1]), eps=config.eps, fused=True,
    )  # fmt: skip
