"""AffinityNets: affinities and their gradient, what is trained and what is not, dropout, momentum, weights."""

import functools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.masks.pairs import pair_directions
from common.nets import pretrained
from common.run.errors import UserError
from common.train.course import Position
from methods.psa.affinity import AffinityNet, pair_affinity
from methods.psa.config import RESNET38_FILE, PSAModelConfig, PSAOptimConfig
from methods.psa.model import ResNetAffinity, TinyAffinity, affinity_net, load_trunk, start_affinity_net
from methods.psa.optim import parameter_groups, psa_optimizer
from methods.psa.resnet38 import Block, Bottleneck, ResNet38

pytestmark = pytest.mark.usefixtures("one_thread")
DIRECTIONS = pair_directions(3)


def plain_affinity(features: Tensor) -> Tensor:
    """The definition, pair by pair, left to autograd."""
    (height, width), reach = features.shape[-2:], 2
    rows = [
        torch.stack(
            [
                torch.exp(-(features[:, :, y, x] - features[:, :, y + dy, x + dx]).abs().mean(1))
                for y in range(height - reach)
                for x in range(reach, width - reach)
            ],
            dim=1,
        )
        for dy, dx in DIRECTIONS
    ]
    return torch.stack(rows, dim=1)  # B D h'w'


def test_affinities_and_their_gradient() -> None:
    """Equal features, whose difference has no direction, included."""
    features = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    features[0, :, 1, 2:4] = features[0, :, 1, 2:3]
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    affinity, expected = pair_affinity(ours, DIRECTIONS, 3), plain_affinity(theirs)
    torch.testing.assert_close(affinity.flatten(2), expected)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (affinity.flatten(2) * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert affinity[0, 0, 1, 0] == 1


def test_affinities_are_float32_under_autocast() -> None:
    features = torch.randn(1, 4, 5, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pair_affinity(features, DIRECTIONS, 3), pair_affinity(features.clone(), DIRECTIONS, 3))
        half = pair_affinity(features.bfloat16(), DIRECTIONS, 3)
    assert half.dtype == torch.float32


@pytest.fixture(scope="module")
def resnet38() -> ResNet38:
    """Without memory: shapes only."""
    with torch.device("meta"):
        return ResNet38()


def test_what_of_resnet38_is_trained(resnet38: ResNet38) -> None:
    """Convolutions from b3 on and the heads; no batch norm, and nothing has a bias."""
    trained = {name for name, parameter in resnet38.named_parameters() if parameter.requires_grad}
    convolutions = {f"{name}.weight" for name, module in resnet38.named_modules() if isinstance(module, nn.Conv2d)}
    first = {name for name in convolutions if name.partition(".")[0] in ("conv1a", "b2", "b2_1", "b2_2")}
    assert trained == convolutions - first and len(first) == 8
    assert resnet38.f9.weight.shape == (448, 448, 1, 1) and resnet38.stride == 8


def test_resnet38_drops_channels_in_training(resnet38: ResNet38) -> None:
    """0.3 in b6 and 0.5 in b7, twice each and nowhere else."""
    rates = {name: module.p for name, module in resnet38.named_modules() if isinstance(module, nn.Dropout2d)}
    assert rates == {"b6.dropout_2b1": 0.3, "b6.dropout_2b2": 0.3, "b7.dropout_2b1": 0.5, "b7.dropout_2b2": 0.5}
    assert not [module for module in resnet38.modules() if isinstance(module, nn.Dropout)]


@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_dropout_is_of_whole_channels_before_both_last_convolutions(rate: float) -> None:
    """The others grow by 1 / (1 - rate), each image draws its own; in evaluation nothing is dropped."""
    torch.manual_seed(0)
    block, x, entered = Bottleneck(16, 4096, 2, rate).eval(), torch.rand(2, 16, 3, 3), {}
    for norm in (block.bn_branch2b1, block.bn_branch2b2):
        norm.weight.detach().fill_(0.01)
        norm.bias.detach().fill_(1)  # nothing is zero by itself
    for name in ("conv_branch2b1", "conv_branch2b2"):
        hook = functools.partial(lambda name, module, args: entered.update({name: args[0].flatten(2)}), name)
        block.get_submodule(name).register_forward_pre_hook(hook)
    plain, _ = block(x)
    whole = dict(entered)
    assert torch.equal(block(x)[0], plain) and not torch.equal(block.train()(x)[0], plain)
    for name, values in entered.items():
        kept = (values != 0).any(2)  # B C
        assert kept.float().mean() == pytest.approx(1 - rate, abs=0.04) and not torch.equal(kept[0], kept[1])
        assert (values[kept] != 0).all() and (whole[name] > 0).all()
    first = entered["conv_branch2b1"]
    torch.testing.assert_close(first, (first != 0) * whole["conv_branch2b1"] / (1 - rate))


def test_batch_norms_use_running_statistics_in_training() -> None:
    """And leave them as they are."""
    block = Block(4, 6, 8, stride=2, dilation=2)
    block.bn_branch2a.running_mean.normal_()
    block.bn_branch2a.running_var.uniform_(0.5, 2)
    before, x = {name: value.clone() for name, value in block.state_dict().items()}, torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(block.train()(x), block.eval()(x), rtol=0, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


def test_a_block_returns_what_enters_its_convolutions() -> None:
    """ReLU of the normalised input; a block that changes nothing in shape adds its input as it is."""
    block, x = Block(4, 6, 4), torch.randn(1, 4, 5, 5)
    out, entering = block(x)
    torch.testing.assert_close(entering, block.bn_branch2a(x).relu())
    branch = block.conv_branch2b1(block.bn_branch2b1(block.conv_branch2a(entering)).relu())
    torch.testing.assert_close(out, x + branch)
    assert not hasattr(block, "conv_branch1") and hasattr(Block(4, 6, 8), "conv_branch1")
    assert Block(4, 6, 4, stride=2)(x)[0].shape == (1, 4, 3, 3)


def test_initialisation_of_the_heads() -> None:
    """Kaiming-normal, and Xavier-uniform of gain 4."""
    torch.manual_seed(0)
    model = AffinityNet((512, 1024, 4096), (64, 128, 256))
    for head, inputs in ((model.f8_3, 512), (model.f8_4, 1024), (model.f8_5, 4096)):
        assert float(head.weight.detach().std()) == pytest.approx(math.sqrt(2 / inputs), rel=0.03)
    bound = 4 * math.sqrt(6 / (448 + 448))
    assert 0.99 * bound < float(model.f9.weight.detach().abs().max()) <= bound
    with pytest.raises(NotImplementedError):
        model(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(("arch", "stride", "channels"), [("resnet18", 8, 448), ("tiny", 2, 48)])
def test_lighter_trunks(arch: str, stride: int, channels: int) -> None:
    """Their features have the stride's size; a ResNet's stem, first layer and batch norms are frozen."""
    torch.manual_seed(0)
    model = affinity_net(PSAModelConfig(arch=arch))
    assert model.stride == stride and model(torch.randn(1, 3, 48, 32)).shape == (
        1,
        channels,
        48 // stride,
        32 // stride,
    )
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if arch == "tiny":
        assert not frozen and [len(group) for group in parameter_groups(model)] == [6, 3, 4, 0]
        return
    assert all(
        "bn" in name or "downsample.1" in name or name.startswith(("resnet.conv1", "resnet.layer1")) for name in frozen
    )
    assert {"resnet.conv1.weight", "resnet.layer1.1.conv2.weight", "resnet.layer4.1.bn2.bias"} <= set(frozen)
    assert [len(group) for group in parameter_groups(model)] == [15, 0, 4, 0]


def test_the_momentum_is_the_weight_decay() -> None:
    """Two steps of plain arithmetic with momentum 0.0005; a group's rate and decay are its own; 0.9 would not do."""
    config = PSAOptimConfig(lr=0.02)
    assert config.momentum == config.weight_decay == 5e-4 and config.power == 0.9
    model = TinyAffinity()
    optimizer = psa_optimizer(model, config)
    parameters = [group["params"][0] for group in optimizer.param_groups if group["params"]]
    expected = [parameter.detach().clone() for parameter in parameters]
    buffers = [torch.zeros_like(value) for value in expected]
    for step in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.3 + step)
        optimizer.step()
        for value, buffer, scale, decay in zip(expected, buffers, (1, 2, 10), (5e-4, 0, 5e-4), strict=True):
            buffer.mul_(5e-4).add_(0.3 + step + decay * value)
            value.sub_(0.02 * scale * buffer)
    for parameter, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-6, atol=1e-7)
    assert not any(group["nesterov"] or group["dampening"] for group in optimizer.param_groups)


def test_the_learning_rate_reaches_zero() -> None:
    config = PSAOptimConfig(lr=0.1)
    assert config.rate(Position(), 10) == 0.1 and config.rate(Position(total_steps=10), 10) == 0
    assert config.rate(Position(total_steps=5), 10) == pytest.approx(0.1 * 0.5**0.9)


class Small(TinyAffinity):
    """Stands in for ResNet-38, whose file has half a gigabyte; with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.bn7 = nn.BatchNorm2d(4)


def save(path: Path, state: dict[str, Tensor]) -> str:
    """A weights file's path."""
    torch.save(state, path)
    return str(path)


def test_weights_of_a_classifier(tmp_path: Path) -> None:
    """The trunk is loaded, the heads stay; the classifier's own layer and missing counters are no matter."""
    source, model = Small().state_dict(), Small()
    trunk = {name: value for name, value in source.items() if not name.startswith("f") and "tracked" not in name}
    heads = model.f9.weight.detach().clone()
    path = save(tmp_path / "res38_cls.pth", {**trunk, "fc8.weight": torch.zeros(20, 4096, 1, 1)})
    assert load_trunk(model, path) == f"{path}: {len(trunk)} of the network's {len(source)} tensors"
    assert torch.equal(model.layers[2][0].weight, source["layers.2.0.weight"]) and torch.equal(model.f9.weight, heads)
    load_trunk(model, save(tmp_path / "aff.pth", source))
    assert torch.equal(model.f9.weight, source["f9.weight"])
    for wrong in ({"layers.0.0.weight": torch.zeros(1)}, {"other.weight": torch.zeros(1)}):
        with pytest.raises(UserError, match="does not fit this model"):
            load_trunk(model, save(tmp_path / "wrong.pth", {**trunk, **wrong}))
    with pytest.raises(UserError, match=r"does not fit this model.* missing"):
        load_trunk(model, save(tmp_path / "wrong.pth", dict(list(trunk.items())[:-1])))


def test_where_a_training_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing weights are named with what to do instead; random ones are a choice."""
    monkeypatch.chdir(tmp_path)
    model = Small()
    with pytest.raises(UserError, match=r"pretrained/res38_cls.pth .*model.arch=resnet50.*model.pretrained=none"):
        start_affinity_net(model, PSAModelConfig(), False)
    assert start_affinity_net(model, PSAModelConfig(pretrained="none"), False) == pretrained.RANDOM_WEIGHTS
    assert start_affinity_net(model, PSAModelConfig(), True) == "resumed"
    assert start_affinity_net(model, PSAModelConfig(arch="resnet50"), True) == "resumed"
    assert "tiny" in start_affinity_net(model, PSAModelConfig(arch="tiny"), False)
    (tmp_path / "pretrained").mkdir()
    save(tmp_path / "pretrained" / RESNET38_FILE, model.state_dict())
    origin = start_affinity_net(model, PSAModelConfig(), False)
    assert origin == "pretrained/res38_cls.pth: 18 of the network's 18 tensors"


def test_a_resnet_starts_from_imagenet(tmp_path: Path) -> None:
    """Torchvision's file, classifier and all."""
    model = ResNetAffinity("resnet18")
    state = {f"{name}": value + 1 for name, value in model.resnet.state_dict().items()}
    path = save(tmp_path / "resnet18.pth", {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)})
    assert "resnet18 of ImageNet" in start_affinity_net(model, PSAModelConfig(arch="resnet18", pretrained=path), False)
    assert torch.equal(model.resnet.conv1.weight, state["conv1.weight"])
