"""ResNets: torchvision's own numbers, strides and dilations, fixed statistics, frozen stages, ImageNet weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet

from common.nets import pretrained
from common.nets.options import BLOCKS, STAGES, ResNetConfig
from common.nets.pretrained import OFFICIAL_FILES, imagenet_weights
from common.nets.resnet import FixedBatchNorm, ResNet
from common.run.config import load_config
from common.run.errors import UserError
from tests.helpers import assert_same

pytestmark = pytest.mark.usefixtures("one_thread")
BLOCK_OF = {"basic": torchvision_resnet.BasicBlock, "bottleneck": torchvision_resnet.Bottleneck}
SMALL = {"resnet18": [1, 1, 2, 1], "resnet50": [1, 1, 1, 2]}  # blocks


def small(
    arch: str = "resnet18", strides: tuple = (2, 2, 2, 1), dilations: tuple = (1, 1, 1, 1), frozen: int = 0
) -> ResNet:
    """A network of few blocks whose statistics are not those it starts with."""
    network = ResNet(ResNetConfig(arch, blocks=SMALL[arch]), strides, dilations, frozen)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def reference(network: ResNet, arch: str, **options: object) -> nn.Module:
    """torchvision's network with the same weights, in evaluation mode."""
    model = torchvision_resnet.ResNet(BLOCK_OF[BLOCKS[arch][0]], SMALL[arch], **options)
    model.load_state_dict(network.state_dict(), strict=False)
    return model.eval()


def stages_of(model: nn.Module, images: Tensor) -> list[Tensor]:
    """What torchvision's network computes on its way."""
    found = [model.maxpool(model.relu(model.bn1(model.conv1(images))))]
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        found.append(layer(found[-1]))
    return found


@pytest.mark.parametrize("arch", SMALL)
def test_stages_are_torchvisions(arch: str) -> None:
    """With its strides, in training mode, too; channels are told."""
    network, images = small(arch, (2, 2, 2, 2)).train(), torch.randn(2, 3, 50, 37)
    with torch.no_grad():
        found, expected = network(images), stages_of(reference(network, arch), images)
    assert len(found) == STAGES
    for maps, wanted, channels in zip(found, expected, network.channels, strict=True):
        assert torch.equal(maps, wanted) and maps.shape[1] == channels


@pytest.mark.parametrize("arch", SMALL)
def test_random_weights_are_torchvisions(arch: str) -> None:
    """The same draws under the same names, so that a training from random weights starts as with torchvision's."""
    torch.manual_seed(3)
    own = ResNet(ResNetConfig(arch, blocks=SMALL[arch]))
    after = torch.rand(1)
    torch.manual_seed(3)
    other = torchvision_resnet.ResNet(BLOCK_OF[BLOCKS[arch][0]], SMALL[arch], num_classes=1, norm_layer=FixedBatchNorm)
    assert torch.equal(after, torch.rand(1))
    expected = {name: value for name, value in other.state_dict().items() if not name.startswith("fc.")}
    assert_same(dict(own.state_dict()), expected)


def test_dilation_instead_of_stride() -> None:
    """As torchvision replaces the last layer's stride: its first block is not dilated."""
    network, images = small("resnet50", (2, 2, 2, 1), (1, 1, 1, 2)), torch.randn(1, 3, 64, 48)
    model = reference(network, "resnet50", replace_stride_with_dilation=[False, False, True])
    with torch.no_grad():
        assert torch.equal(network(images)[-1], stages_of(model, images)[-1])


@pytest.mark.parametrize("arch", SMALL)
def test_strides_set_the_sizes(arch: str) -> None:
    """Of the stem and of layer2 to layer4, whatever the dilation; an odd size is rounded up."""
    images = torch.randn(1, 3, 65, 98)
    for strides, dilations in (
        ((2, 2, 2, 1), (1, 1, 1, 1)),
        ((2, 1, 1, 1), (1, 2, 4, 4)),
        ((1, 2, 2, 2), (1, 1, 1, 1)),
    ):
        size, expected = (65, 98), []
        for stride in (strides[0] * 2, 1, *strides[1:]):
            size = tuple(-(-side // stride) for side in size)
            expected.append(size)
        with torch.no_grad():
            found = [tuple(maps.shape[-2:]) for maps in small(arch, strides, dilations)(images)]
        assert found == expected


def test_statistics_are_fixed_and_the_affine_part_can_be_trained() -> None:
    """Training neither uses nor changes the batch's own statistics."""
    network, images = small().train(), 3 + torch.randn(2, 3, 32, 32)
    before = {name: value.clone() for name, value in network.named_buffers()}
    trained = network(images)[-1]
    trained.sum().backward()
    assert_same(dict(network.named_buffers()), before)
    assert torch.equal(trained, network.eval()(images)[-1])
    norms = [module for module in network.modules() if isinstance(module, FixedBatchNorm)]
    assert len(norms) == 1 + 2 * 5 + 3 and all(norm.weight.grad.abs().sum() > 0 for norm in norms)


@pytest.mark.parametrize("frozen", [0, 3, STAGES])
def test_frozen_stages_get_no_gradient(frozen: int) -> None:
    """Those up to a number; the rest does, and the outputs do not depend on it."""
    network, other, images = small(frozen=frozen), small(), torch.randn(1, 3, 32, 32)
    other.load_state_dict(network.state_dict())
    outputs = network(images)
    assert all(torch.equal(*pair) for pair in zip(outputs, other(images), strict=True))
    assert [maps.requires_grad for maps in outputs] == [number > frozen for number in range(1, STAGES + 1)]
    if frozen < STAGES:
        sum(maps.sum() for maps in outputs[frozen:]).backward()
    stem, layers = network.conv1, (network.layer1, network.layer2, network.layer3, network.layer4)
    first = stem, *(layer[0].conv1 for layer in layers)
    expected = [number > frozen for number in range(1, STAGES + 1)]
    assert [part.weight.grad is not None for part in first] == expected
    assert [part.weight.requires_grad for part in first] == expected and network.bn1.bias.requires_grad == expected[0]


def test_imagenet_weights_are_loaded_strictly() -> None:
    """Old files have no batch counters, and all have a classifier; another depth is refused."""
    source, network = small("resnet50"), small("resnet50")
    old = {name: value for name, value in source.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(source.state_dict())
    network.load_imagenet({**old, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)})
    assert_same(dict(network.state_dict()), dict(source.state_dict()))
    with pytest.raises(UserError, match="left over"):
        ResNet(ResNetConfig("resnet50", blocks=[1, 1, 1, 1])).load_imagenet(old)
    with pytest.raises(UserError, match="of another shape"):
        small("resnet18").load_imagenet(old)


@pytest.mark.parametrize("arch", BLOCKS)
def test_weights_are_found_or_asked_for(arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of either spelling, then torchvision's hub; without both, the message says what to fetch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda url, **options: {"url": url, **options}
    )
    asked = imagenet_weights(arch, "auto")
    assert asked["url"].endswith(OFFICIAL_FILES[arch][1]) and asked["check_hash"]

    def unreachable(*args: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(pretrained, "_from_hub", unreachable)
    with pytest.raises(UserError) as caught:
        imagenet_weights(arch, "auto")
    for part in (*OFFICIAL_FILES[arch], "torchvision's hub", "ConnectionError", "model.pretrained=none"):
        assert part in str(caught.value), part
    for name in OFFICIAL_FILES[arch]:
        Path("pretrained").mkdir(exist_ok=True)
        torch.save({"x": torch.ones(1)}, f"pretrained/{name}")
        assert set(imagenet_weights(arch, "auto")) == {"x"}
        Path("pretrained", name).unlink()


def test_blocks_are_four_numbers_or_none() -> None:
    """Anything else is refused by name."""
    assert ResNet(load_config(ResNetConfig, None, ["arch=resnet18", "blocks=[1,1,1,1]"])).channels[-1] == 512
    for wrong in ("[1]", "[1,1,1,0]"):
        with pytest.raises(UserError, match=r"blocks is .*; it must be empty or 4 numbers"):
            load_config(ResNetConfig, None, [f"blocks={wrong}"])
