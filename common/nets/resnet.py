"""ResNets as the CNN branches and refinement networks use them: five stage outputs, own strides, fixed statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet
from torchvision.models.resnet import BasicBlock, Bottleneck

from common.nets.pretrained import Coverage, load_checked
from common.run.config import Rule, option

BLOCKS = {  # kind of block, blocks in each of the four layers
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}
STAGES = 5


@dataclass
class ResNetConfig:
    """Which ResNet, and what it starts from."""

    arch: str = option("resnet50", "Network whose ImageNet weights it starts from.", choices=tuple(BLOCKS))
    pretrained: str = option(
        "auto", "auto (a file in pretrained/, else torchvision's hub), none (random), or a weights file."
    )
    blocks: list[int] = option(
        [], "Blocks in each of the four layers; empty: those of arch. Others have no ImageNet weights.",
        rule=Rule("empty or 4 numbers above 0", lambda counts: not counts or (len(counts) == 4 and min(counts) > 0)),
    )  # fmt: skip


class FixedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the running statistics, in training, too, which never changes them.

    Scale and shift can be trained.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The normalised map (B, C, h, w)."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class ResNet(torchvision_resnet.ResNet):
    """torchvision's network (stride in the bottleneck's 3x3 convolution) without a classifier, under its names.

    Stage 1 is the stem with its pooling; stages 2 to 5 are layer1 to layer4 (reference: IRNet's net/resnet50.py).

    Attributes:
        channels: of the five stages' outputs.
    """

    def __init__(
        self, config: ResNetConfig, strides: Sequence[int] = (2, 2, 2, 2), dilations: Sequence[int] = (1, 1, 1, 1),
        frozen: int = 0,
    ) -> None:  # fmt: skip
        """Builds the network with random weights.

        Args:
            strides: of the first convolution, layer2, layer3 and layer4.
            dilations: of the 3x3 convolutions of layer1 to layer4, those of a layer's first block excepted, which are
                not dilated.
            frozen: stages, from the first, that are not trained: their parameters get no gradient.
        """
        block, blocks = BLOCKS[config.arch]
        super().__init__(block, list(config.blocks or blocks), num_classes=1, norm_layer=FixedBatchNorm)
        del self.avgpool, self.fc
        self.channels = [64, *(planes * block.expansion for planes in (64, 128, 256, 512))]
        self.conv1.stride = (strides[0], strides[0])
        layers = self.layer1, self.layer2, self.layer3, self.layer4
        for layer, stride, dilation in zip(layers, (1, *strides[1:]), dilations, strict=True):
            _set_stride(layer[0], stride)
            for later in layer[1:]:
                _set_dilation(later, dilation)
        self.frozen = frozen
        stages: list[tuple[nn.Module, ...]] = [(self.conv1, self.bn1), *((layer,) for layer in layers)]
        for module in (module for stage in stages[:frozen] for module in stage):
            module.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The outputs of the five stages.

        Args:
            images: (B, 3, H, W), ImageNet-normalised.

        Returns:
            Maps (B, channels[i], h_i, w_i); with strides (2, 2, 2, 1) of 1/4, 1/4, 1/8, 1/16 and 1/16 of the size.
        """
        outputs: list[Tensor] = []
        stages = (self._stem, self.layer1, self.layer2, self.layer3, self.layer4)
        for number, stage in enumerate(stages, start=1):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number > self.frozen):
                outputs.append(stage(outputs[-1] if outputs else images))
        return outputs

    def load_imagenet(self, weights: Mapping[str, Tensor]) -> Coverage:
        """Loads torchvision's weights, strictly but for the classifier and the batch counters of newer versions.

        Raises:
            UserError: they are another network's.
        """
        counters = {name: value for name, value in self.state_dict().items() if name.endswith("num_batches_tracked")}
        kept = {name: value for name, value in weights.items() if not name.startswith("fc.")}
        return load_checked(self, {**counters, **kept}, "the ImageNet weights")

    def _stem(self, images: Tensor) -> Tensor:
        return self.maxpool(self.relu(self.bn1(self.conv1(images))))


def _set_stride(block: BasicBlock | Bottleneck, stride: int) -> None:
    """Gives a layer's first block another stride."""
    strided = [block.conv2 if isinstance(block, Bottleneck) else block.conv1]
    if block.downsample is not None:
        strided += [part for part in block.downsample.modules() if isinstance(part, nn.Conv2d)]
    for convolution in strided:
        convolution.stride = (stride, stride)


def _set_dilation(block: nn.Module, dilation: int) -> None:
    """Dilates the 3x3 convolutions of a block, which keep the size."""
    for convolution in block.modules():
        if isinstance(convolution, nn.Conv2d) and convolution.kernel_size == (3, 3):
            convolution.dilation = convolution.padding = (dilation, dilation)
