"""DeepLab's network: names, sizes, frozen norms, scales, optimiser groups."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.train.course import Position
from common.train.optim import set_lr
from methods.deeplab.config import DeepLabModelConfig, DeepLabOptimConfig
from methods.deeplab.losses import DeepLabStep
from methods.deeplab.model import ASPP, DeepLab, FrozenNormConv
from methods.deeplab.optim import deeplab_optimizer

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(**config: object) -> DeepLab:
    """A network of four blocks with random weights and statistics."""
    torch.manual_seed(0)
    small = {"width": 4, "blocks": [1, 1, 1, 1], "atrous_rates": [1, 2], **config}
    model = DeepLab(DeepLabModelConfig(**small), 7)
    for name, value in model.state_dict().items():
        if ".bn." in name and value.is_floating_point():
            value.copy_(0.5 + torch.rand(value.shape) if "mean" not in name else torch.randn(value.shape))
    return model


@pytest.fixture(scope="module")
def whole() -> DeepLab:
    """The published network, without memory for its weights."""
    with torch.device("meta"):
        return DeepLab(DeepLabModelConfig(), 21)


def test_names_and_number_of_tensors(whole: DeepLab) -> None:
    """Those of the reference's checkpoints."""
    state = whole.state_dict()
    assert len(state) == 632 and sum(parameter.numel() for parameter in whole.parameters()) == 44_048_532
    shapes = {
        "base.layer1.conv1.conv.weight": (64, 3, 7, 7),
        "base.layer2.block1.shortcut.bn.num_batches_tracked": (),
        "base.layer3.block4.conv3x3.conv.weight": (128, 128, 3, 3),
        "base.layer4.block23.increase.bn.running_var": (1024,),
        "base.layer5.block1.reduce.conv.weight": (512, 1024, 1, 1),
        "base.aspp.c3.weight": (21, 2048, 3, 3),
        "base.aspp.c0.bias": (21,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert "base.layer2.block2.shortcut.conv.weight" not in state and "base.layer1.conv1.conv.bias" not in state


def test_optimiser_groups(whole: DeepLab) -> None:
    """104 kernels of the backbone, four kernels and four biases of the ASPP; the norms are in none."""
    groups = deeplab_optimizer(whole, DeepLabOptimConfig()).param_groups
    assert [len(group["params"]) for group in groups] == [104, 4, 4]
    assert [group["weight_decay"] for group in groups] == [5e-4, 5e-4, 0]
    assert {parameter.ndim for group in groups[:2] for parameter in group["params"]} == {4}
    assert all(group["momentum"] == 0.9 and group["dampening"] == 0 and not group["nesterov"] for group in groups)
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr_scale": 20.0}], 1.0)
    set_lr(optimizer, 2.5e-4)
    assert optimizer.param_groups[0]["lr"] == 5e-3


def test_learning_rate() -> None:
    """It stays for ten steps, falls to 0, and does not depend on anything else."""
    config = DeepLabOptimConfig()
    rates = [config.rate(Position(total_steps=step), 200) for step in range(201)]
    assert rates[0] == 2.5e-4 and rates[200] == 0
    for step, rate in enumerate(rates):
        assert rate == rates[step // 10 * 10]
    assert all(later < earlier for earlier, later in zip(rates[::10], rates[10::10], strict=False))
    assert rates[100] == pytest.approx(2.5e-4 * 0.5**0.9)


@pytest.mark.parametrize(("side", "scaled"), [(321, (41, 21, 31)), (65, (9, 5, 7)), (48, (7, 4, 5))])
def test_sizes_of_the_outputs(side: int, scaled: tuple[int, ...]) -> None:
    """Stride 8; of the image, at each scale, and the maximum."""
    with torch.no_grad():
        outputs = tiny(width=1).outputs(torch.zeros(1, 3, side, side))
    assert [logits.shape[-1] for logits in outputs] == [*scaled, scaled[0]]
    assert {logits.shape[1] for logits in outputs} == {7}


@pytest.mark.parametrize("size", [(113, 150), (50, 33)])
def test_size_of_the_test_logits(size: tuple[int, int]) -> None:
    """As the stem, the pooling and one strided stage give it."""
    expected = []
    for length in size:
        a = (length - 1) // 2 + 1
        b = -((1 - a) // 2) + 1
        expected.append((b - 1) // 2 + 1)
    with torch.no_grad():
        assert list(tiny(width=1)(torch.zeros(1, 3, *size)).shape[-2:]) == expected


def test_the_maximum_over_the_scales() -> None:
    """Each scale by the network alone on a resized image; training and evaluation are the same."""
    model, images = tiny(), torch.randn(2, 3, 49, 64)
    with torch.no_grad():
        outputs = model.train().outputs(images)
        parts = [model.base(images)]
        for scale in (0.5, 0.75):
            small = F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
            assert small.shape[-2:] == (int(49 * scale), int(64 * scale))
            parts.append(model.base(small))
        for expected, found in zip(parts, outputs[:3], strict=True):
            assert torch.equal(expected, found)
        enlarged = [F.interpolate(part, parts[0].shape[-2:], mode="bilinear", align_corners=False) for part in parts]
        assert torch.equal(torch.stack(enlarged).amax(0), outputs[3])
        assert torch.equal(model.eval()(images), outputs[3])
        assert not torch.equal(outputs[3], outputs[0])


def test_one_scale_alone() -> None:
    """One output, which counts once in the loss."""
    model, images, labels = tiny(scales=[]), torch.randn(1, 3, 33, 33), torch.zeros(1, 33, 33, dtype=torch.uint8)
    assert len(model.outputs(images)) == 1 and torch.equal(model(images), model.base(images))
    losses = DeepLabStep(model)(images, labels)
    assert set(losses) == {"total", "x1"} and losses["total"] == losses["x1"]


@pytest.mark.parametrize("relu", [True, False])
def test_the_folded_norm_is_the_norm(relu: bool) -> None:
    """Values and gradients of convolution, batch norm by its statistics, and ReLU."""
    torch.manual_seed(0)
    layer, x = FrozenNormConv(3, 5, 3, 2, dilation=2, relu=relu).double(), torch.randn(2, 3, 9, 11).double()
    layer.bn.running_mean.copy_(torch.randn(5))
    layer.bn.running_var.copy_(torch.rand(5) + 0.1)
    layer.bn.weight.data.copy_(torch.randn(5))
    layer.bn.bias.data.copy_(torch.randn(5))
    expected = layer.bn.eval()(layer.conv(x))
    expected = expected.relu() if relu else expected
    torch.testing.assert_close(layer(x), expected)
    weight = torch.randn_like(expected)
    gradients = [torch.autograd.grad((out * weight).sum(), layer.conv.weight)[0] for out in (layer(x), expected)]
    torch.testing.assert_close(*gradients)


def test_norms_never_change() -> None:
    """Three steps in training mode: no gradient, no other statistics, no other counter; all kernels move."""
    model = tiny().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer, step = deeplab_optimizer(model, DeepLabOptimConfig(lr=1e-3)), DeepLabStep(model)
    for seed in range(3):
        torch.manual_seed(seed)
        optimizer.zero_grad()
        step(torch.randn(2, 3, 33, 33), torch.randint(7, (2, 33, 33)).to(torch.uint8))["total"].backward()
        assert all((parameter.grad is None) == (".bn." in name) for name, parameter in model.named_parameters())
        optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if ".bn." not in name}


def test_one_step_of_the_optimiser_by_hand() -> None:
    """Momentum, weight decay of kernels but not of biases, and the three rates."""
    model, config = tiny(), DeepLabOptimConfig(lr=0.1)
    optimizer, before = deeplab_optimizer(model, config), {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.grad, before[name] = torch.ones_like(parameter), parameter.detach().clone()
    set_lr(optimizer, 0.1)
    optimizer.step()
    for name, parameter in model.named_parameters():
        if name not in before:
            continue
        is_bias, is_head = name.endswith("bias"), ".aspp." in name
        rate = 0.1 * (20 if is_bias else 10 if is_head else 1)
        step = 1 + (0 if is_bias else 5e-4) * before[name]
        torch.testing.assert_close(parameter.detach(), before[name] - rate * step)


def test_first_weights_of_the_aspp() -> None:
    """Normal with a standard deviation of 0.01; biases 0."""
    torch.manual_seed(0)
    aspp = ASPP(64, 21, [6, 12, 18, 24])
    weights = torch.cat([conv.weight.detach().flatten() for conv in aspp.children()])
    assert weights.std() == pytest.approx(0.01, rel=0.02) and abs(weights.mean()) < 2e-4
    assert not any(conv.bias.any() for conv in aspp.children())
    assert [conv.dilation for conv in aspp.children()] == [(rate, rate) for rate in (6, 12, 18, 24)]


def test_where_the_stride_is() -> None:
    """In the first block of layer3 only, in either kernel; outputs are as large, but not the same."""
    images = torch.randn(1, 3, 33, 33)
    outputs: list[Tensor] = []
    for where in ("reduce", "conv3x3"):
        model = tiny(stride_in=where)
        strided = [
            name for name, part in model.named_modules() if isinstance(part, nn.Conv2d) and part.stride == (2, 2)
        ]
        places = ("layer1.conv1", f"layer3.block1.{where}", "layer3.block1.shortcut")
        assert strided == [f"base.{place}.conv" for place in places]
        outputs.append(model(images))
    assert outputs[0].shape == outputs[1].shape and not torch.allclose(*outputs)
