"""Weights of other origin, as files made up here: names, coverage, refusals."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from common.nets.load import load_checked
from common.run.errors import UserError
from methods.deeplab.config import DeepLabConfig
from methods.deeplab.model import DeepLab
from methods.deeplab.weights import released, start_deeplab
from tests.helpers import assert_same
from tests.methods.test_deeplab_model import tiny

pytestmark = pytest.mark.usefixtures("one_thread")
BLOCKS = [1, 2, 1, 1]


def network(width: int = 4, labels: int = 7, **config: object) -> DeepLab:
    """A network that is to be filled."""
    assert labels == 7 or not config
    model = tiny(width=width, blocks=BLOCKS, **config)
    if labels != 7:
        torch.manual_seed(1)
        model = DeepLab(settings("", width=width).model, labels)
    return model


def settings(file: object, form: str = "caffe", **model: object) -> DeepLabConfig:
    """The configuration that names a file."""
    config = DeepLabConfig()
    config.views.input, config.model.pretrained = form, str(file)
    for key, value in {"width": 4, "blocks": BLOCKS, "atrous_rates": [1, 2], **model}.items():
        setattr(config.model, key, value)
    return config


def trained() -> dict[str, Tensor]:
    """The state dict of another network of that size, with values of its own."""
    generator = torch.Generator().manual_seed(7)
    return {
        name: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value + 3
        for name, value in network().state_dict().items()
    }


def caffe() -> dict[str, Tensor]:
    """As the published files of ResNets: no prefix, no counters, no ASPP, a classifier of 91 classes."""
    state = {name.removeprefix("base."): value for name, value in trained().items()}
    body = {name: value for name, value in state.items() if "aspp" not in name and not name.endswith("tracked")}
    return {**body, "fc.weight": torch.zeros(91, 128), "fc.bias": torch.zeros(91)}


def torchvision() -> ResNet:
    """torchvision's class with a stem of 4 channels, and random statistics."""
    torch.manual_seed(3)
    model = ResNet(Bottleneck, BLOCKS, num_classes=10)
    model.conv1, model.bn1, model.inplanes = nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4), 4
    for number, (count, stride) in enumerate(zip(BLOCKS, (1, 2, 2, 2), strict=True)):
        setattr(model, f"layer{number + 1}", model._make_layer(Bottleneck, 4 * 2**number, count, stride))
    for name, value in model.state_dict().items():
        if "running" in name:
            value.copy_(torch.rand(value.shape) + (-0.5 if "mean" in name else 0.5))
    return model


def dilated(model: ResNet) -> ResNet:
    """torchvision's network with DeepLab's strides, dilations and pooling."""
    model.maxpool.ceil_mode = True
    for layer, dilation in ((model.layer3, 2), (model.layer4, 4)):
        for block in layer:
            block.conv2.stride, block.conv2.dilation, block.conv2.padding = (1, 1), (dilation,) * 2, (dilation,) * 2
            if block.downsample is not None:
                block.downsample[0].stride = (1, 1)
    return model.eval()


def features(model: ResNet, images: Tensor) -> Tensor:
    """What the classifier's pooling would see."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    return model.layer4(model.layer3(model.layer2(model.layer1(x))))


def body_of(model: DeepLab) -> nn.Module:
    """The network without its ASPP."""
    return nn.Sequential(*(part for name, part in model.base.named_children() if name != "aspp"))


def saved(state: object, name: str = "weights.pth") -> Path:
    torch.save(state, name)
    return Path(name)


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state}])
def test_a_resnet_of_caffe(wrap: object) -> None:
    """The whole backbone is loaded and said to be; the ASPP keeps its first values."""
    model, aspp = network(), {name: value.clone() for name, value in network().base.aspp.state_dict().items()}
    text = start_deeplab(model, settings(saved(wrap(caffe()))))
    count = len(body_of(model).state_dict())
    assert f"weights.pth, a ResNet of Caffe: backbone {count} of {count} tensors loaded; ASPP at random" in text
    assert "ignored: fc.weight, fc.bias" in text and "approximation" not in text
    assert all(torch.equal(value, aspp[name]) for name, value in model.base.aspp.state_dict().items())
    expected, state = caffe(), model.base.state_dict()
    assert all(torch.equal(state[name], value) for name, value in expected.items() if not name.startswith("fc."))


def test_a_resnet_of_torchvision() -> None:
    """With the stride where these weights have it, features equal torchvision's; else it is called approximate."""
    file = saved(torchvision().state_dict())
    model = network(stride_in="conv3x3")
    text = start_deeplab(model, settings(file, "imagenet", stride_in="conv3x3"))
    assert "a ResNet of torchvision or timm: backbone" in text and "approximation" not in text
    images = torch.randn(2, 3, 49, 50)
    with torch.no_grad():
        expected = features(dilated(torchvision()), images)
        assert 0.2 < (expected > 0.1).float().mean() < 0.9
        torch.testing.assert_close(body_of(model)(images), expected, rtol=1e-4, atol=1e-4)
        model = network()
        assert "an approximation" in start_deeplab(model, settings(file, "imagenet"))
        assert not torch.allclose(body_of(model)(images), expected, rtol=1e-2, atol=1e-2)


def test_the_inputs_must_be_those_of_the_weights() -> None:
    """Both ways round; nothing is loaded."""
    wrong = (
        (saved(caffe()), "imagenet", "a ResNet of Caffe.*Set views.input=caffe"),
        (saved(torchvision().state_dict(), "tv.pth"), "caffe", "torchvision or timm.*Set views.input=imagenet"),
    )
    for file, form, words in wrong:
        model = network()
        with pytest.raises(UserError, match=words):
            start_deeplab(model, settings(file, form))
        assert_untouched(model)


def assert_untouched(model: DeepLab) -> None:
    assert_same(dict(model.state_dict()), dict(network().state_dict()))


def without(part: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if part not in name}


def wide(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """One kernel of another shape."""
    name = "layer3.block1.conv3x3.conv.weight"
    return {**state, name: state[name].repeat(2, 1, 1, 1)}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda state: without("layer4", state), r"does not fit this model: \d+ of \d+ tensors.*missing \(layer4"),
        (lambda state: without("layer2.block1.reduce.bn.running_var", state), "1 missing"),
        (lambda state: {**state, "layer3.block3.reduce.conv.weight": torch.zeros(1)}, "1 left over"),
        (wide, r"of another shape \(layer3\.block1\.conv3x3"),
        (lambda state: {f"encoder.{name}": value for name, value in state.items()}, "no weights that can be mapped"),
        (lambda state: {"epoch": 3}, "holds no state dict"),
    ],
)
def test_a_poor_match_is_refused(damage: object, words: str) -> None:
    """One tensor is enough; the network is left as it was."""
    model = network()
    with pytest.raises(UserError, match=words):
        start_deeplab(model, settings(saved(damage(caffe()))))
    assert_untouched(model)


def test_a_deeper_resnet_of_torchvision_is_refused() -> None:
    state = torchvision().state_dict()
    deeper = {name.replace("layer2.1.", "layer2.2."): value for name, value in state.items() if "layer2.1." in name}
    with pytest.raises(UserError, match=r"left over \(layer3\.block3"):
        start_deeplab(network(), settings(saved({**state, **deeper}), "imagenet"))


def test_a_deeplab_checkpoint_as_first_weights() -> None:
    """With its ASPP for as many labels, without it for others."""
    file = saved({f"module.{name}": value for name, value in trained().items()})
    model = network()
    text = start_deeplab(model, settings(file, "imagenet"))
    assert "a DeepLab checkpoint" in text and "ASPP 4 of 4 tensors loaded" in text
    assert "taken to be trained with views.input=imagenet" in text
    assert_same(dict(model.state_dict()), trained())
    other = network(labels=5)
    before = other.base.aspp.c0.weight.clone()
    text = start_deeplab(other, settings(file))
    assert "ASPP at random, as the file's has other labels or rates" in text
    assert torch.equal(other.base.aspp.c0.weight, before)
    assert torch.equal(other.base.layer5.block1.reduce.conv.weight, trained()["base.layer5.block1.reduce.conv.weight"])


def test_torchvisions_own_weights_and_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the place that all methods take them from; none is a warning, a missing file an error."""
    asked = []
    monkeypatch.setattr(
        "methods.deeplab.weights.imagenet_weights", lambda *args: asked.append(args) or torchvision().state_dict()
    )
    origin = start_deeplab(network(), settings("torchvision", "imagenet"))
    assert "resnet101 of ImageNet, a ResNet of torchvision" in origin
    assert asked == [("resnet101", "auto")]
    model = network()
    assert "WARNING: random weights" in start_deeplab(model, settings("none"))
    assert_untouched(model)
    with pytest.raises(UserError, match=r"no initial weights lost\.pth.*pretrained=torchvision.*pretrained=none"):
        start_deeplab(network(), settings("lost.pth"))


@pytest.mark.parametrize("form", ["whole", "without counters", "without prefix"])
def test_released_checkpoints_load_strictly(form: str) -> None:
    """As saved here, by an old PyTorch, or without the prefix; anything else does not fit."""
    state = trained()
    if form != "whole":
        state = without("num_batches_tracked", state)
    if form == "without prefix":
        state = {name.removeprefix("base."): value for name, value in state.items()}
    model = network()
    coverage = load_checked(model, released(state), "file")
    assert not (coverage.missing or coverage.unexpected or coverage.wrong_shape)
    assert torch.equal(model.base.aspp.c1.bias, trained()["base.aspp.c1.bias"])
    for poor in (caffe(), torchvision().state_dict()):
        with pytest.raises(UserError, match="does not fit this model"):
            load_checked(model, released(poor), "file")
