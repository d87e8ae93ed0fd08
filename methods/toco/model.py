"""ToCo's network: a ViT with two classifiers, a segmentation decoder, and projection heads for class tokens.

The classifier reads the last patch tokens, the auxiliary classifier the patch tokens of an earlier block.
Symbols: B batch, C foreground classes, D width, h*w patches. Parameter names are the released checkpoints'.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.nets.load import Coverage, load_checked
from common.nets.options import ViTConfig
from common.nets.plain_vit import PlainViT
from common.nets.pretrained import backbone_state
from methods.toco.config import ToCoModelConfig


class Features(NamedTuple):
    """The result of a pass through the encoder.

    Attributes:
        cls_token: of the last block, after the norm, (B, D).
        patches: of the last block, after the norm, (B, D, h, w).
        aux: patch tokens of the auxiliary block, before any norm, (B, D, h, w).
    """

    cls_token: Tensor
    patches: Tensor
    aux: Tensor

    def first(self, count: int) -> "Features":
        """The features of the first ``count`` images."""
        return Features(*(part[:count] for part in self))


class Encoder(PlainViT):
    """timm's ViT under timm's names; the position embedding stays ImageNet's, and the head is not used."""

    needs_class_token = True

    def __init__(self, config: ToCoModelConfig) -> None:
        """Random weights.

        Raises:
            UserError: the auxiliary block does not exist, or is the last.
        """
        super().__init__(config)
        self.aux_block = config.aux_block()
        self.pos_embed.requires_grad_(False)

    def add_layers(self, config: ViTConfig) -> None:
        """Adds the classifier of ImageNet, which is in the released checkpoints."""
        if not config.is_timms:
            self.head = nn.Linear(self.embed_dim, 1000).requires_grad_(False)

    def forward(self, images: Tensor) -> Features:  # type: ignore[override]  # more than a plain ViT gives
        """Features of images (B, 3, H, W); a remainder below a patch at the right and bottom is dropped."""
        tokens, grid = self.embed(images)
        for index, block in enumerate(self.blocks_at(grid)):
            tokens, _ = block(tokens)
            if index == self.aux_block:
                aux = tokens[:, self.first_patch :]
        tokens = self.norm(tokens)
        maps = (part.transpose(1, 2).unflatten(2, grid) for part in (tokens[:, self.first_patch :], aux))  # B D h w
        return Features(tokens[:, 0], *maps)


class CosineLayer(nn.Module):
    """A weight-normalised linear layer: rows are directions ``weight_v`` times gains ``weight_g``, frozen at 1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(outputs, 1), requires_grad=False)
        self.weight_v = nn.Parameter(nn.Linear(inputs, outputs, bias=False).weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) to (B, outputs)."""
        return F.linear(x, self.weight_g * self.weight_v / self.weight_v.norm(dim=1, keepdim=True))


class ProjectionHead(nn.Module):
    """DINO's head: class tokens (B, D) to (B, 1024) cosines with learned directions."""

    def __init__(self, dim: int, hidden: int, bottleneck: int = 256, outputs: int = 1024) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.last_layer = CosineLayer(bottleneck, outputs)
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) to (B, 1024)."""
        return self.last_layer(F.normalize(self.mlp(x), dim=-1))


class LargeFOV(nn.Module):
    """DeepLab's LargeFOV decoder: patch tokens (B, D, h, w) to logits (B, C + 1, h, w), background first.

    Initialised by PyTorch: the reference's Kaiming initialiser is never called.
    """

    def __init__(self, dim: int, num_labels: int, hidden: int, dilation: int = 5) -> None:
        super().__init__()
        self.conv6 = nn.Conv2d(dim, hidden, 3, padding=dilation, dilation=dilation, bias=False)
        self.conv7 = nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation, bias=False)
        self.conv8 = nn.Conv2d(hidden, num_labels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) to (B, C + 1, h, w)."""
        return self.conv8(F.relu(self.conv7(F.relu(self.conv6(x)))))


class ToCo(nn.Module):
    """The network."""

    def __init__(self, config: ToCoModelConfig, num_classes: int) -> None:
        """Random weights; the teacher head starts as a copy of the student's.

        Args:
            num_classes: C, without background.
        """
        super().__init__()
        self.num_classes = num_classes
        self.encoder = Encoder(config)
        dim = self.encoder.embed_dim
        self.proj_head, self.proj_head_t = (ProjectionHead(dim, config.proj_dim) for _ in range(2))
        self.proj_head_t.requires_grad_(False).load_state_dict(self.proj_head.state_dict())
        self.decoder = LargeFOV(dim, num_classes + 1, config.decoder_dim)
        self.classifier = nn.Conv2d(dim, num_classes, 1, bias=False)
        self.aux_classifier = nn.Conv2d(dim, num_classes, 1, bias=False)

    def load_imagenet(self, state: Mapping[str, Tensor]) -> Coverage:
        """Starts the encoder from an ImageNet ViT; the heads stay random.

        Raises:
            UserError: it is no ViT of this size with one class token.
        """
        kept = backbone_state(state, self.encoder)
        if self.encoder.is_timms:
            return load_checked(self.encoder, kept, "the backbone's weights")
        # The classifier of ImageNet is in the released checkpoints, but never used: kept if it has 1000 classes.
        own = self.encoder.head.state_dict(prefix="head.")
        kept |= {name: state[name] for name in own if name in state and state[name].shape == own[name].shape}
        return load_checked(self.encoder, kept, "the ImageNet checkpoint", ("head.",))

    def logits(self, features: Features) -> tuple[Tensor, Tensor]:
        """Class logits and auxiliary class logits, each (B, C), from maxima over the patches."""
        heads = (self.classifier, features.patches), (self.aux_classifier, features.aux)
        return tuple(head(F.adaptive_max_pool2d(maps, 1)).flatten(1) for head, maps in heads)

    @torch.no_grad()
    def raw_cams(self, features: Features) -> tuple[Tensor, Tensor]:
        """CAM and auxiliary CAM, each (B, C, h, w), not rectified."""
        return self.classifier(features.patches), self.aux_classifier(features.aux)

    @torch.no_grad()
    def cams(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """CAM and auxiliary CAM, each (B, C, h, w), not rectified, of images (B, 3, H, W)."""
        return self.raw_cams(self.encoder(images))

    def segment(self, images: Tensor) -> Tensor:
        """Segmentation logits (B, C + 1, h, w), background first, of images (B, 3, H, W)."""
        return self.decoder(self.encoder(images).patches)

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Moves the teacher head towards the student's: t <- m t + (1 - m) s for every tensor."""
        for teacher, student in zip(self.proj_head_t.parameters(), self.proj_head.parameters(), strict=True):
            teacher.lerp_(student, 1 - momentum)
