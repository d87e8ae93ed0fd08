"""ResNet-38 (Wu, Shen and van den Hengel, "Wider or Deeper", 2016) as the trunk of PSA's AffinityNet.

Pre-activation blocks of convolutions without biases; names are the reference's (network/resnet38d.py).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from common.nets.resnet import FixedBatchNorm
from methods.psa.affinity import AffinityNet


class Block(nn.Module):
    """Two 3x3 convolutions. A call returns the output, and the input after batch norm and ReLU."""

    def __init__(
        self, inputs: int, middle: int, outputs: int, stride: int = 1, first_dilation: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.bn_branch2a = FixedBatchNorm(inputs)
        self.conv_branch2a = _conv(inputs, middle, 3, stride, first_dilation)
        self.bn_branch2b1 = FixedBatchNorm(middle)
        self.conv_branch2b1 = _conv(middle, outputs, 3, 1, dilation)
        if inputs != outputs or stride != 1:
            self.conv_branch1 = _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, outputs, h, w) and (B, inputs, h', w')."""
        entering = F.relu(self.bn_branch2a(x))
        straight = self.conv_branch1(entering) if hasattr(self, "conv_branch1") else x
        branch = F.relu(self.bn_branch2b1(self.conv_branch2a(entering)))
        return straight + self.conv_branch2b1(branch), entering


class Bottleneck(nn.Module):
    """1x1, dilated 3x3 and 1x1 convolution with dropout of channels; called as `Block`."""

    def __init__(self, inputs: int, outputs: int, dilation: int, dropout: float) -> None:
        super().__init__()
        first = outputs // 4
        second = outputs // 2
        self.bn_branch2a = FixedBatchNorm(inputs)
        self.conv_branch2a = _conv(inputs, first, 1)
        self.bn_branch2b1 = FixedBatchNorm(first)
        self.dropout_2b1 = nn.Dropout2d(dropout)
        self.conv_branch2b1 = _conv(first, second, 3, 1, dilation)
        self.bn_branch2b2 = FixedBatchNorm(second)
        self.dropout_2b2 = nn.Dropout2d(dropout)
        self.conv_branch2b2 = _conv(second, outputs, 1)
        self.conv_branch1 = _conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, outputs, h, w) and (B, inputs, h, w)."""
        entering = F.relu(self.bn_branch2a(x))
        branch = self.dropout_2b1(F.relu(self.bn_branch2b1(self.conv_branch2a(entering))))
        branch = self.dropout_2b2(F.relu(self.bn_branch2b2(self.conv_branch2b1(branch))))
        return self.conv_branch1(entering) + self.conv_branch2b2(branch), entering


class ResNet38(AffinityNet):
    """AffinityNet on ResNet-38: features of 448 channels at 1/8 of the size."""

    frozen = ("conv1a", "b2", "b2_1", "b2_2")

    def __init__(self) -> None:
        super().__init__(channels=(512, 1024, 4096), widths=(64, 128, 256))
        self.conv1a = _conv(3, 64, 3)
        self.b2 = Block(64, 128, 128, 2)
        self.b2_1 = Block(128, 128, 128)
        self.b2_2 = Block(128, 128, 128)
        self.b3 = Block(128, 256, 256, 2)
        self.b3_1 = Block(256, 256, 256)
        self.b3_2 = Block(256, 256, 256)
        self.b4 = Block(256, 512, 512, 2)
        for number in range(1, 6):
            self.add_module(f"b4_{number}", Block(512, 512, 512))
        self.b5 = Block(512, 512, 1024, first_dilation=1, dilation=2)
        self.b5_1, self.b5_2 = (Block(1024, 512, 1024, first_dilation=2, dilation=2) for _ in range(2))
        self.b6 = Bottleneck(1024, 2048, 4, 0.3)
        self.b7 = Bottleneck(2048, 4096, 4, 0.5)
        self.bn7 = FixedBatchNorm(4096)
        self.freeze()

    def stages(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """conv4, conv5 and conv6 (B, 512 / 1024 / 4096, h, w): inputs of b5 and b6, and output of b7."""
        x = self.conv1a(images)
        early = self.b2, self.b2_1, self.b2_2, self.b3, self.b3_1, self.b3_2, self.b4
        for block in (*early, *(self.get_submodule(f"b4_{number}") for number in range(1, 6))):
            x, _ = block(x)
        x, conv4 = self.b5(x)
        for block in (self.b5_1, self.b5_2):
            x, _ = block(x)
        x, conv5 = self.b6(x)
        x, _ = self.b7(x)
        return conv4, conv5, F.relu(self.bn7(x))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
