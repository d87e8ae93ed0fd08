"""Configuration sections of the networks. Imports no PyTorch."""

from dataclasses import dataclass
from pathlib import Path

from common.run.config import BELOW_ONE, Rule, at_least, option
from common.run.errors import UserError
from common.run.files import require_weights

# width, depth, heads of the public DeiT/ViT models (patch 16, image 224)
ARCHITECTURES = {
    "deit_tiny_patch16_224": (192, 12, 3),
    "deit_small_patch16_224": (384, 12, 6),
    "deit_base_patch16_224": (768, 12, 12),
    "vit_base_patch16_224": (768, 12, 12),
}

PRETRAINED_DIR = Path("pretrained")


def check_pretrained(source: str, is_resumed: bool) -> None:
    """Checks where the weights that a training starts from come from; a resumed one needs none.

    Raises:
        UserError: it is a file that does not exist.
    """
    if not is_resumed and source not in ("auto", "none"):
        require_weights(source)


TIMM = "timm:"  # before the name of one of timm's models
SIZES = (224, 16)  # image and patch of ARCHITECTURES


KNOWN_ARCH = Rule(
    f"one of: {', '.join(ARCHITECTURES)}, or timm:NAME",
    lambda arch: arch in ARCHITECTURES or arch.startswith(TIMM),
)


@dataclass
class ViTConfig:
    """The backbone; a field left at 0 takes the architecture's own value."""

    arch: str = option(
        "deit_small_patch16_224",
        f"Architecture: {', '.join(ARCHITECTURES)}, or timm:NAME for a vision transformer of timm (docs/backbones.md). "
        "Its weights fit if no other field changes it.",
        rule=KNOWN_ARCH,
    )  # fmt: skip
    pretrained: str = option(
        "auto",
        "First weights: auto (pretrained/, else timm's hub), none (random, only for tests and demos), or a file.",
        flag="--finetune",
    )
    img_size: int = option(
        0,
        "Side of the training images in pixels; sets the grid of the position embedding.",
        flag=("--input-size", "--input_size"),
        rule=at_least(0),
    )
    patch_size: int = option(0, "Side of a patch in pixels.", rule=at_least(0))
    embed_dim: int = option(0, "Width D.", rule=at_least(0))
    depth: int = option(0, "Number of blocks.", rule=at_least(0))
    num_heads: int = option(0, "Attention heads.", rule=at_least(0))
    drop_path: float = option(
        0.1,
        "Stochastic depth rate of the last block, growing linearly from 0.",
        flag=("--drop-path", "--drop_path"),
        rule=BELOW_ONE,
    )
    freeze: str = option(
        "none", "Layers that are not trained: none, all (of the backbone), or first:N (the embedding and N blocks).",
        rule=Rule("none, all, or first:N", lambda text: text in ("none", "all") or _frozen_blocks(text) >= 0),
    )  # fmt: skip

    def check(self) -> None:
        """Checks the sizes, and puts the architecture's own image and patch size in place of 0.

        Raises:
            UserError: as `dimensions`; or the patch size is not that of weights to start from.
        """
        image, patch = SIZES
        if self.is_timms:
            from common.nets.timm_models import facts

            known = facts(self.arch)
            image, patch = known.image, known.patch
            if self.patch_size not in (0, patch) and self.pretrained != "none":
                raise UserError(
                    f"model.patch_size={self.patch_size}, but {self.arch} has patches of {patch} pixels, which its "
                    "weights are made for: leave the key out, or take the model of another patch size (or random "
                    "weights: model.pretrained=none)"
                )
        self.img_size = self.img_size or image
        self.patch_size = self.patch_size or patch
        self.dimensions()

    def check_start(self, is_resumed: bool) -> None:
        """Checks the weights of a training.

        Raises:
            UserError: as `check_pretrained`.
        """
        check_pretrained(self.pretrained, is_resumed)

    @property
    def is_timms(self) -> bool:
        """Whether the backbone is one of timm's models."""
        return self.arch.startswith(TIMM)

    def dimensions(self) -> tuple[int, int, int]:
        """Width, depth and heads.

        Raises:
            UserError: the width does not divide into the heads, or the image into patches; or timm has no such model.
        """
        if self.is_timms:
            from common.nets.timm_models import facts

            known = facts(self.arch)
            width, depth, heads = known.width, known.depth, known.heads
        else:
            width, depth, heads = ARCHITECTURES[self.arch]
        width = self.embed_dim or width
        depth = self.depth or depth
        heads = self.num_heads or heads
        if width % heads:
            raise UserError(f"model.embed_dim={width} does not divide by model.num_heads={heads}")
        if self.patch_size and self.img_size % self.patch_size:
            near = max(round(self.img_size / self.patch_size), 1) * self.patch_size
            raise UserError(
                f"model.img_size={self.img_size} is no multiple of model.patch_size={self.patch_size}; the nearest is "
                f"{near}"
            )
        return width, depth, heads

    def frozen_layers(self) -> range:
        """The layers that are not trained: 0 is the embedding, i the i-th block, and one more the norm after them."""
        depth = self.dimensions()[1]
        return range({"none": 0, "all": depth + 2}.get(self.freeze, 1 + _frozen_blocks(self.freeze)))


def _frozen_blocks(text: str) -> int:
    """N of ``first:N``, -1 for any other text."""
    name, _, number = text.partition(":")
    return int(number) if name == "first" and number.isdecimal() else -1


SEED_MAPS = ("rcams", "fcams", "cams")


STAGES = 5  # of a ResNet: the stem and four layers
BLOCKS = {  # kind of block, blocks in each of the four layers
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}


@dataclass
class ResNetConfig:
    """The ResNet and its first weights."""

    arch: str = option("resnet50", "Network whose ImageNet weights it starts from.", choices=tuple(BLOCKS))
    pretrained: str = option(
        "auto", "auto (a file in pretrained/, else torchvision's hub), none (random), or a weights file."
    )
    blocks: list[int] = option(
        [], "Blocks in each of the four layers; empty: as in arch. Others have no ImageNet weights.",
        rule=Rule("empty or 4 numbers above 0", lambda counts: not counts or (len(counts) == 4 and min(counts) > 0)),
    )  # fmt: skip

    def check_start(self, is_resumed: bool) -> None:
        """Checks the weights of a training.

        Raises:
            UserError: as `check_pretrained`.
        """
        check_pretrained(self.pretrained, is_resumed)
