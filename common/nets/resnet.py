"""ResNets as the CNN branches and refinement networks use them: five stage outputs, own strides, fixed statistics."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.nets.load import Coverage, load_checked
from common.nets.options import BLOCKS, ResNetConfig

PLANES = (64, 128, 256, 512)  # of layer1 to layer4


class FixedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the running statistics, in training, too, which never changes them.

    Scale and shift can be trained.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The normalised map (B, C, h, w)."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut, under torchvision's names; the first has the stride."""

    expansion = 1

    def __init__(self, entering: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _convolution(entering, planes, 3, stride)
        self.bn1 = FixedBatchNorm(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _convolution(planes, planes, 3)
        self.bn2 = FixedBatchNorm(planes)
        self.downsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, c, h, w) to one of ``planes`` channels."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution with a shortcut, under torchvision's names; the 3x3 one has the stride."""

    expansion = 4

    def __init__(self, entering: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _convolution(entering, planes, 1)
        self.bn1 = FixedBatchNorm(planes)
        self.conv2 = _convolution(planes, planes, 3, stride)
        self.bn2 = FixedBatchNorm(planes)
        self.conv3 = _convolution(planes, self.expansion * planes, 1)
        self.bn3 = FixedBatchNorm(self.expansion * planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, c, h, w) to one of four times ``planes`` channels."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


KINDS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def _convolution(entering: int, leaving: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size, but for its stride."""
    return nn.Conv2d(entering, leaving, kernel, stride, padding=kernel // 2, bias=False)


class ResNet(nn.Module):
    """torchvision's network (stride in the bottleneck's 3x3 convolution) without a classifier, under its names.

    It is written here, as torchvision takes seconds to import.

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
            dilations: of the 3x3 convolutions of layer1 to layer4; the first block of a layer is never dilated.
            frozen: stages, from the first, that are not trained: their parameters get no gradient.
        """
        super().__init__()
        kind, blocks = BLOCKS[config.arch]
        block = KINDS[kind]
        self.channels = [64, *(planes * block.expansion for planes in PLANES)]
        self.conv1 = nn.Conv2d(3, 64, 7, strides[0], padding=3, bias=False)
        self.bn1 = FixedBatchNorm(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        depths = config.blocks or blocks
        shapes = zip(self.channels[:-1], PLANES, depths, (1, *strides[1:]), dilations, strict=True)
        layers = [_layer(block, *shape) for shape in shapes]
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        nn.Linear(self.channels[-1], 1)  # torchvision draws a classifier's weights here: the same draws, the same start
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
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
        stages: list[Callable[[Tensor], Tensor]] = [self._stem, self.layer1, self.layer2, self.layer3, self.layer4]
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


def _layer(
    block: type[BasicBlock] | type[Bottleneck], entering: int, planes: int, depth: int, stride: int, dilation: int
) -> nn.Sequential:
    """A layer of blocks: the first has the stride, the later ones the dilation of their 3x3 convolutions."""
    leaving = planes * block.expansion
    # torchvision draws the shortcut's weights before the block's.
    shortcut = None
    if planes != PLANES[0] or entering != leaving:
        shortcut = nn.Sequential(_convolution(entering, leaving, 1, stride), FixedBatchNorm(leaving))
    first = block(entering, planes, stride)
    first.downsample = shortcut
    others = [block(leaving, planes) for _ in range(depth - 1)]
    for later in others:
        _set_dilation(later, dilation)
    return nn.Sequential(first, *others)


def _set_dilation(block: nn.Module, dilation: int) -> None:
    """Dilates the 3x3 convolutions of a block, which keep the size."""
    for convolution in block.modules():
        if isinstance(convolution, nn.Conv2d) and convolution.kernel_size == (3, 3):
            convolution.dilation = convolution.padding = (dilation, dilation)
