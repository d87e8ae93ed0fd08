"""ToCo's energy loss: against its formula in float64, and what it rewards."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.crf.lattice import Lattice, bilateral_features
from methods.toco.config import EnergyConfig
from methods.toco.energy import PIXEL_MEAN, PIXEL_STD, box_mask, energy_loss

SIDE, HALF, CLASSES = 16, 8, 3
CONFIG = EnergyConfig(weight=1e-3, sigma_xy=12.0, sigma_rgb=60.0)
BOXES = torch.tensor([[0, 16, 0, 16], [3, 14, 0, 9]])


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Decoder logits (2, 3, 4, 4), images (2, 3, 16, 16) and pseudo labels (2, 16, 16), a third of them 255."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, CLASSES, 4, 4, generator=generator)
    images = torch.randn(2, 3, SIDE, SIDE, generator=generator)
    labels = torch.randint(0, CLASSES, (2, SIDE, SIDE), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = 255
    return logits, images, labels


def upsampled(logits: Tensor) -> Tensor:
    return F.interpolate(logits, (SIDE, SIDE), mode="bilinear", align_corners=False)


def by_the_formula(logits: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient with respect to the decoder's logits, float64, with the filter as a dense matrix."""
    logits = logits.double().requires_grad_()
    halved = upsampled(logits).softmax(1).unflatten(2, (HALF, 2)).unflatten(4, (HALF, 2)).mean((3, 5))
    energy, surrogate = 0.0, 0.0
    for image in range(2):
        top, bottom, left, right = BOXES[image].tolist()
        pixels = torch.stack([images[image, c] * PIXEL_STD[c] + PIXEL_MEAN[c] for c in range(3)])[:, ::2, ::2]
        lattice = Lattice(bilateral_features(pixels, CONFIG.sigma_xy / 2, CONFIG.sigma_rgb))
        kernel = lattice.filter(torch.eye(HALF * HALF)).double()
        for class_ in range(CLASSES):
            inside = torch.zeros(HALF, HALF, dtype=torch.float64)
            gate = torch.zeros(HALF, HALF, dtype=torch.float64)
            for row in range(HALF):
                for column in range(HALF):
                    inside[row, column] = top <= 2 * row < bottom and left <= 2 * column < right
                    open_ = inside[row, column] - halved[image, :, row, column].max().detach()
                    gate[row, column] = 1 if labels[image, 2 * row, 2 * column] == 255 else max(open_, 0)
            segment = (halved[image, class_] * inside).flatten()
            filtered = gate.flatten() * (kernel @ segment.detach())
            energy = energy - CONFIG.weight / 2 * (segment.detach() * filtered).sum()
            surrogate = surrogate - 2 * CONFIG.weight / 2 * (segment * filtered).sum()
    surrogate.backward()
    return energy, logits.grad


def test_value_and_gradient_by_the_formula() -> None:
    """The gradient goes on through halving, softmax and upsampling."""
    logits, images, labels = batch()
    expected, gradient = by_the_formula(logits, images, labels)
    logits.requires_grad_()
    loss = energy_loss(upsampled(logits), images, labels, BOXES, CONFIG)
    (3 * loss).backward()
    assert loss.shape == () and loss < 0
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(logits.grad.double(), 3 * gradient, rtol=1e-4, atol=1e-6 * gradient.abs().max().item())


def test_nothing_comes_from_outside_the_box() -> None:
    logits, images, labels = batch()
    logits = upsampled(logits).requires_grad_()
    energy_loss(logits, images, labels, BOXES, CONFIG).backward()
    reached = logits.grad.abs().sum(1) > 0  # a halved pixel is inside if its first pixel is
    assert (reached[1, 4:14, :10]).any() and not reached[1, :4].any() and not reached[1, 14:].any()
    assert not reached[1, :, 10:].any() and reached[0].any()


def test_segments_along_the_edges_of_the_image_are_rewarded() -> None:
    """Left against right half of an image whose halves differ in colour, and top against bottom."""
    images = torch.full((1, 3, SIDE, SIDE), -1.0)
    images[..., SIDE // 2 :] = 1.5
    labels, box = torch.full((1, SIDE, SIDE), 255), torch.tensor([[0, SIDE, 0, SIDE]])
    along = torch.zeros(1, 2, SIDE, SIDE)
    along[:, 0, :, : SIDE // 2] = along[:, 1, :, SIDE // 2 :] = 8
    config = EnergyConfig(sigma_xy=100.0)
    losses = [energy_loss(logits, images, labels, box, config) for logits in (along, along.mT)]
    assert losses[0] < 1.3 * losses[1] < 0


def test_float32_under_autocast() -> None:
    logits, images, labels = batch()
    expected = energy_loss(upsampled(logits), images, labels, BOXES, CONFIG)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = energy_loss(upsampled(logits), images, labels, BOXES, CONFIG)
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    half = upsampled(logits).bfloat16().requires_grad_()
    energy_loss(half, images, labels, BOXES, CONFIG).backward()
    assert half.grad.dtype == torch.bfloat16 and half.grad.isfinite().all()


def test_settings_are_used() -> None:
    logits, images, labels = batch()
    logits = upsampled(logits)
    default = energy_loss(logits, images, labels, BOXES, EnergyConfig())
    twice = energy_loss(logits, images, labels, BOXES, EnergyConfig(weight=2e-7))
    torch.testing.assert_close(twice, 2 * default)
    for change in ({"sigma_rgb": 60.0}, {"sigma_xy": 10.0}, {"scale": 1.0}):
        changed = energy_loss(logits, images, labels, BOXES, EnergyConfig(**change))
        assert abs(changed / default - 1) > 0.01, change


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64])
def test_boxes(dtype: torch.dtype) -> None:
    mask = box_mask(torch.tensor([[0, 4, 0, 6], [1, 3, 2, 5], [2, 2, 0, 6]], dtype=dtype), 4, 6)
    assert mask[0].all() and mask[1].sum() == 6 and mask[1, 1:3, 2:5].all() and not mask[2].any()
