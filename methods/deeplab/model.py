"""DeepLabV2: a dilated ResNet in Caffe's form, ASPP, and the maximum over image scales, under the reference's names."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.tensors import required
from methods.deeplab.config import DeepLabModelConfig

STAGES = ((1, 1), (2, 1), (1, 2), (1, 4))  # stride and dilation of layer2 ... layer5: the output has stride 8
EXPANSION = 4  # channels of a block relative to its 3x3 kernel's
BATCH_NORM_MOMENTUM = 1e-3
ASPP_STD = 0.01


class FrozenNormConv(nn.Module):
    """Convolution, batch norm by its stored statistics, and ReLU.

    The norm is folded into the kernel, which is the same up to rounding and keeps only one map for the backward pass.
    Its statistics and affine parameters never change (reference: in evaluation mode, and in no optimiser group).
    """

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, dilation: int = 1, relu: bool = True):
        """See the class; ``size`` is odd, and the output's size is the input's divided by the stride."""
        super().__init__()
        padding = dilation * (size // 2)
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, dilation, bias=False)
        self.bn = nn.BatchNorm2d(outputs, momentum=BATCH_NORM_MOMENTUM).requires_grad_(False)
        self.relu = relu
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu" if relu else "linear")

    def forward(self, x: Tensor) -> Tensor:
        """B c H W -> B d H' W'."""
        conv = self.conv
        bn = self.bn
        scale = bn.weight * torch.rsqrt(required(bn.running_var, "running variance") + bn.eps)  # d
        shift = bn.bias - required(bn.running_mean, "running mean") * scale  # d
        kernel = conv.weight * scale[:, None, None, None]
        x = F.conv2d(x, kernel, shift, conv.stride, conv.padding, conv.dilation)
        return F.relu_(x) if self.relu else x


class Bottleneck(nn.Module):
    """A residual block: 1x1, 3x3, 1x1."""

    def __init__(self, inputs: int, outputs: int, stride: int, dilation: int, is_first: bool, stride_in: str) -> None:
        """See the class; the first block of a stage has a projection in its shortcut."""
        super().__init__()
        middle = outputs // EXPANSION
        strides = (stride, 1) if stride_in == "reduce" else (1, stride)
        self.reduce = FrozenNormConv(inputs, middle, 1, strides[0])
        self.conv3x3 = FrozenNormConv(middle, middle, 3, strides[1], dilation)
        self.increase = FrozenNormConv(middle, outputs, 1, relu=False)
        self.shortcut = FrozenNormConv(inputs, outputs, 1, stride, relu=False) if is_first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """B c H W -> B d H' W'."""
        h = self.increase(self.conv3x3(self.reduce(x)))
        h += self.shortcut(x)
        return F.relu_(h)


class ASPP(nn.Module):
    """The sum of parallel 3x3 convolutions of several dilations."""

    def __init__(self, inputs: int, outputs: int, rates: list[int]) -> None:
        super().__init__()
        for number, rate in enumerate(rates):
            conv = nn.Conv2d(inputs, outputs, 3, padding=rate, dilation=rate)
            nn.init.normal_(conv.weight, std=ASPP_STD)
            nn.init.zeros_(required(conv.bias, "bias"))
            self.add_module(f"c{number}", conv)

    def forward(self, x: Tensor) -> Tensor:
        """B d h w -> B C+1 h w."""
        first, *others = self.children()
        total = first(x)
        for conv in others:
            total = total + conv(x)
        return total


class DeepLabV2(nn.Sequential):
    """Images (B, 3, H, W) to logits (B, C + 1, h, w) of stride 8, on one scale."""

    aspp: ASPP

    def __init__(self, config: DeepLabModelConfig, num_labels: int) -> None:
        stem = FrozenNormConv(3, config.width, 7, 2)
        pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        first: OrderedDict[str, nn.Module] = OrderedDict(conv1=stem, pool=pool)
        parts: OrderedDict[str, nn.Module] = OrderedDict(layer1=nn.Sequential(first))
        inputs = config.width
        for number, (count, (stride, dilation)) in enumerate(zip(config.blocks, STAGES, strict=True)):
            outputs = config.width * EXPANSION * 2**number
            stage: OrderedDict[str, nn.Module] = OrderedDict()
            for block in range(count):
                is_first = block == 0
                stage[f"block{block + 1}"] = Bottleneck(
                    inputs, outputs, stride if is_first else 1, dilation, is_first, config.stride_in
                )
                inputs = outputs
            parts[f"layer{number + 2}"] = nn.Sequential(stage)
        parts["aspp"] = ASPP(inputs, num_labels, config.atrous_rates)
        super().__init__(parts)


class DeepLab(nn.Module):
    """`DeepLabV2` over several scales (the reference's MSC wrapper)."""

    def __init__(self, config: DeepLabModelConfig, num_labels: int) -> None:
        """See the class; ``num_labels`` is C + 1, background included."""
        super().__init__()
        self.scales = list(config.scales)
        self.base = DeepLabV2(config, num_labels)
        if config.channels_last:
            self.to(memory_format=torch.channels_last)

    def outputs(self, images: Tensor) -> list[Tensor]:
        """Logits of the image, of each scale at its own size, and their maximum at the image's: (B, C + 1, h, w) each.

        Without scales: the logits of the image alone.
        """
        logits = self.base(images)
        # The given factor sets the sampling points, not the ratio of the sizes (the reference under PyTorch >= 1.6).
        scaled = [self.base(F.interpolate(images, scale_factor=scale, mode="bilinear")) for scale in self.scales]
        if not scaled:
            return [logits]
        highest = logits
        for part in scaled:
            highest = torch.maximum(highest, F.interpolate(part, logits.shape[-2:], mode="bilinear"))
        return [logits, *scaled, highest]

    def forward(self, images: Tensor) -> Tensor:
        """The maximum over the scales: images (B, 3, H, W) to logits (B, C + 1, h, w)."""
        return self.outputs(images)[-1]
