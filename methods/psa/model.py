"""AffinityNets: on ResNet-38 as published, on a ResNet of ImageNet, and on a tiny trunk for demos."""

from collections.abc import Mapping

from torch import Tensor, nn

from common.nets.load import Coverage, load_checked, state_dict_in
from common.nets.options import ResNetConfig
from common.nets.pretrained import RANDOM_WEIGHTS, start_weights
from common.nets.resnet import ResNet
from methods.psa.affinity import HEADS, AffinityNet
from methods.psa.config import TINY_STRIDE, PSAModelConfig, resnet38_weights
from methods.psa.resnet38 import ResNet38


class ResNetAffinity(AffinityNet):
    """AffinityNet on a ResNet whose last two layers are dilated: 1/8 of the size."""

    frozen = ("resnet.conv1", "resnet.layer1")

    def __init__(self, arch: str) -> None:
        resnet = ResNet(ResNetConfig(arch), strides=(2, 2, 1, 1), dilations=(1, 1, 2, 4))
        super().__init__(channels=resnet.channels[2:], widths=(64, 128, 256))
        self.resnet = resnet
        self.freeze()

    def stages(self, images: Tensor) -> list[Tensor]:
        """The outputs of the last three layers."""
        return self.resnet(images)[2:]

    def load_imagenet(self, weights: Mapping[str, Tensor]) -> Coverage:
        """Loads the trunk; see `ResNet.load_imagenet`."""
        return self.resnet.load_imagenet(weights)


class TinyAffinity(AffinityNet):
    """AffinityNet on three convolutions at half the image's size, all trained."""

    stride = TINY_STRIDE

    def __init__(self) -> None:
        super().__init__(channels=(32, 32, 32), widths=(16, 16, 16))
        self.layers = nn.ModuleList([_layer(3, 2, 1), _layer(32, 1, 2), _layer(32, 1, 4)])

    def stages(self, images: Tensor) -> list[Tensor]:
        """The outputs of all three layers."""
        maps = [images]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        return maps[1:]


def affinity_net(config: PSAModelConfig) -> AffinityNet:
    """The network of a configuration, with random weights."""
    if config.arch == "resnet38":
        return ResNet38()
    return TinyAffinity() if config.arch == "tiny" else ResNetAffinity(config.arch)


def start_affinity_net(model: AffinityNet, config: PSAModelConfig, is_resumed: bool) -> str:
    """Starts a network from the configured weights, if a training begins; returns their origin, for the log.

    Raises:
        UserError: the weights do not exist, or belong to another network.
    """
    if is_resumed:
        return "resumed"
    if config.arch == "tiny":
        return "random: there are none for the tiny network"
    if isinstance(model, ResNetAffinity):
        return start_weights(model, config.arch, config.pretrained, is_resumed)
    return RANDOM_WEIGHTS if config.pretrained == "none" else load_trunk(model, config.pretrained)


def load_trunk(model: AffinityNet, source: str) -> str:
    """Loads the trunk, and any heads, from a file under the reference's names.

    Args:
        source: a file, or ``auto``.

    Raises:
        UserError: the file does not exist, or holds another network.
    """
    path = resnet38_weights(source)
    weights = {name: value for name, value in state_dict_in(path).items() if not name.startswith("fc8.")}
    own = model.state_dict()
    # Older files have no counters of the batch norms, classifiers have no heads.
    spared = {name: own[name] for name in own if name.startswith(HEADS) or name.endswith("num_batches_tracked")}
    load_checked(model, {**spared, **weights}, str(path))
    return f"{path}: {len(weights)} of the network's {len(own)} tensors"


def _layer(inputs: int, stride: int, dilation: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, 32, 3, stride, padding=dilation, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(4, 32), nn.ReLU())
