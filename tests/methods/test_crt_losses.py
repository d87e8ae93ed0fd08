"""CRT's losses, against what they are made of."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.nets.options import ResNetConfig, ViTConfig
from methods.crt.config import CRTModelConfig, LossConfig
from methods.crt.losses import LOSS_TERMS, CRTStep, consistency_loss, pooled_logits
from methods.crt.model import CRT
from tests.golden.runners_crt_train import Given

pytestmark = pytest.mark.usefixtures("one_thread")


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal values."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def enlarged(maps: Tensor, size: int) -> Tensor:
    """Maps (B, K, h, w) at (size, size): the first and last cells' centres lie on the first and last pixels."""
    grids = [torch.linspace(0, side - 1, size, dtype=torch.float64) for side in maps.shape[-2:]]
    for axis, positions in zip((2, 3), grids, strict=True):
        low = positions.floor().long().clamp(max=max(maps.shape[axis] - 2, 0))
        high = (low + 1).clamp(max=maps.shape[axis] - 1)
        share = (positions - low).view([-1 if number == axis else 1 for number in range(4)])
        maps = maps.index_select(axis, low) * (1 - share) + maps.index_select(axis, high) * share
    return maps


@pytest.mark.parametrize("grids", [((3, 3), (3, 3)), ((2, 2), (4, 4)), ((1, 1), (3, 2))])
def test_consistency_is_the_mean_difference_of_the_enlarged_maps(grids: tuple) -> None:
    """Of all classes and pixels, with corners aligned; whatever the grids; gradients flow into both."""
    first, second = (
        draw(2, 3, *grid, seed=number).double().requires_grad_() for number, grid in enumerate(grids, start=1)
    )
    expected = (enlarged(first, 16) - enlarged(second, 16)).abs().mean()
    found = consistency_loss(first, second, (16, 16))
    torch.testing.assert_close(found, expected)
    wanted, grads = (torch.autograd.grad(loss, (first, second)) for loss in (expected, found))
    for one, other in zip(grads, wanted, strict=True):
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, other)


def test_equal_maps_are_consistent() -> None:
    """And a difference that is the same everywhere is the loss; which of the two is larger does not matter."""
    maps = draw(2, 3, 4, 4)
    assert consistency_loss(maps, maps.clone(), (32, 32)) == 0
    for shift in (0.7, -0.7):
        assert float(consistency_loss(maps, maps + shift, (32, 32))) == pytest.approx(0.7, rel=1e-5)


@pytest.mark.parametrize("epoch", [0, 1, 2, 5])
def test_the_total(epoch: int) -> None:
    """Both classification losses, and the consistency from its first epoch on; it is 0 before."""
    cams, labels = (draw(4, 3, 6, 6), draw(4, 3, 6, 6, seed=1)), (draw(4, 3, seed=2) > 0).float()
    found = CRTStep(Given(*cams), LossConfig(0.3, 2))(torch.zeros(4, 3, 48, 48), labels, epoch)
    assert set(found) == {"total", *LOSS_TERMS, "logits_cnn", "logits_deit"}
    for name, maps in zip(("cnn", "deit"), cams, strict=True):
        torch.testing.assert_close(found[f"logits_{name}"], maps.flatten(2).mean(2))
        expected = F.binary_cross_entropy_with_logits(maps.flatten(2).mean(2), labels)
        torch.testing.assert_close(found[f"cls_{name}"], expected)
    counts = epoch >= 2
    assert torch.equal(found["consistency"], consistency_loss(*cams, (48, 48)) * counts)
    torch.testing.assert_close(found["total"], found["cls_cnn"] + found["cls_deit"] + 0.3 * found["consistency"])


def test_losses_are_means_over_images() -> None:
    """What micro-batches and processes rely on."""
    cams, labels = (draw(4, 3, 6, 6), draw(4, 3, 6, 6, seed=1)), (draw(4, 3, seed=2) > 0).float()
    parts = [[maps[own] for maps in (*cams, labels)] for own in (slice(2), slice(2, 4))]
    whole, *halves = (
        CRTStep(Given(*maps), LossConfig())(torch.zeros(len(of), 3, 48, 48), of, 1)
        for *maps, of in ([*cams, labels], *parts)
    )
    for name in ("total", *LOSS_TERMS):
        torch.testing.assert_close(whole[name], (halves[0][name] + halves[1][name]) / 2)


def test_what_gets_gradients() -> None:
    """All of the DeiT; of the CNN what follows layer2. The consistency loss alone reaches both heads."""
    model = CRT(
        CRTModelConfig(
            ResNetConfig("resnet18", blocks=[1, 1, 1, 1]),
            ViTConfig(img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2, drop_path=0.0), 2,
        ), 3,
    )  # fmt: skip
    images, labels = draw(2, 3, 48, 48), torch.eye(3)[:2]
    CRTStep(model, LossConfig())(images, labels, 0)["total"].backward()
    fixed = tuple(f"cnn.backbone.{part}" for part in ("conv1", "bn1", "layer1", "layer2"))
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith(fixed), name
        assert parameter.grad is None or parameter.grad.abs().sum() > 0, name
    consistency = CRTStep(model, LossConfig())(images, labels, 1)["consistency"]
    heads = [model.cnn.classifier.weight, model.deit.head.weight]
    assert all(grad.any() for grad in torch.autograd.grad(consistency, heads))


def test_losses_are_float32_under_autocast() -> None:
    """Maps of low precision are summed in float32."""
    cams = (draw(2, 3, 6, 6).bfloat16(), draw(2, 3, 6, 6, seed=1).bfloat16())
    found = CRTStep(Given(*cams), LossConfig())(torch.zeros(2, 3, 48, 48), torch.zeros(2, 3), 1)
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert torch.equal(found["logits_cnn"], pooled_logits(cams[0].float()))
