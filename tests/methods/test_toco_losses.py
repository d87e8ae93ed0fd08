"""ToCo's losses against their definitions, their normalisation over processes, and their safe forms."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.run.errors import UserError
from methods.toco.losses import LossGroups, class_contrast, patch_contrast, segmentation_loss


def draws(*shape: int, seed: int = 0) -> Tensor:
    """Normal float64 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_patch_contrast_by_loops() -> None:
    """Sums and counts over the pairs of two images, every pair looked at on its own."""
    maps = draws(2, 5, 2, 3)
    affinity = torch.randint(0, 3, (2, 6, 6), generator=torch.Generator().manual_seed(1))
    affinity[affinity == 2] = 255
    sums, counts = {0: 0.0, 1: 0.0}, {0: 0, 1: 0}
    for image, pairs in zip(maps.flatten(2), affinity, strict=True):
        for i in range(6):
            for j in range(6):
                kind = int(pairs[i, j])
                if kind != 255:
                    sums[kind] += float(F.cosine_similarity(image[:, i], image[:, j], dim=0).abs())
                    counts[kind] += 1
    expected = 0.5 * (1 - sums[1] / (counts[1] + 1)) + 0.5 * sums[0] / (counts[0] + 1)
    assert float(patch_contrast(maps, affinity, LossGroups(2))) == pytest.approx(expected, rel=1e-6)
    nothing = torch.full_like(affinity, 255)
    assert float(patch_contrast(maps, nothing, LossGroups(2))) == 0.5


def reference_class_contrast(student: Tensor, teacher: Tensor, flags: Tensor, temperature: float) -> Tensor:
    """The definition, with exponentials."""
    count, views = flags.shape
    student, teacher, losses = student.view(views, count, -1), teacher.view(2, count, -1), []
    for image in range(count):
        terms = []
        for view in range(2):
            powers = torch.exp(student[:, image] @ teacher[view, image] / temperature)
            negatives = powers[flags[image] == 0].sum()
            terms += [-torch.log(power / (power + negatives + 1e-4)) for power in powers[flags[image] == 1]]
            terms.append(torch.log(1 + negatives + 1e-4))
        losses.append(sum(terms) / 2 / (flags[image].sum() + 1e-4))
    return sum(losses) / count


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_class_contrast_by_its_definition(temperature: float) -> None:
    """Value and gradient, for an image without negatives, one with some, one with all crops negative."""
    student, teacher = 0.3 * draws(18, 7), 0.3 * draws(6, 7, seed=1)
    flags = torch.tensor([[1] * 6, [1, 1, 0, 1, 0, 1], [1, 1, 0, 0, 0, 0]])
    results = []
    for loss_of in (reference_class_contrast, class_contrast):
        leaf = student.clone().requires_grad_()
        loss = loss_of(leaf, teacher, flags, temperature)
        results.append((loss.double(), torch.autograd.grad(loss, leaf)[0]))
    for computed, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(computed, expected, rtol=1e-5, atol=1e-7)


def test_class_contrast_where_exponentials_overflow() -> None:
    """Similarities of 1024 at temperature 0.5: e^2048 is no float; the loss is, and so is its gradient."""
    student = torch.full((6, 1024), 1.0, requires_grad=True)
    loss = class_contrast(student, torch.ones(2, 1024), torch.tensor([[1, 1, 0, 0, 1, 0]]), 0.5)
    loss.backward()
    assert 100 < loss.item() < 10_000 and student.grad.isfinite().all() and student.grad.abs().max() > 0


def test_segmentation_loss_by_loops_and_over_empty_sets() -> None:
    """Background and foreground have means of their own; a kind that is not there gives 0 and no gradient."""
    logits = draws(2, 4, 3, 3).requires_grad_()
    labels = torch.tensor([[[0, 0, 255], [1, 2, 3], [0, 255, 1]], [[255] * 3, [3, 3, 0], [0] * 3]])
    errors = -logits.log_softmax(1)
    background, foreground = [], []
    for image, row, column in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(3)):
        label = int(labels[image, row, column])
        if label != 255:
            (foreground if label else background).append(errors[image, label, row, column])
    expected = 0.5 * (sum(background) / len(background) + sum(foreground) / len(foreground))
    torch.testing.assert_close(segmentation_loss(logits, labels, LossGroups(2)).double(), expected, rtol=1e-6, atol=0)
    for label, other in ((0, "background"), (2, "foreground"), (255, "nothing")):
        only = torch.full_like(labels, label)
        loss = segmentation_loss(logits, only, LossGroups(2))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite() and gradient.isfinite().all(), other
        assert (float(loss) == 0) == (label == 255) and bool(gradient.any()) == (label != 255)


@pytest.mark.parametrize(("size", "batch", "world"), [(2, 4, 1), (2, 4, 2), (2, 2, 2), (4, 4, 2), (0, 4, 2), (2, 4, 4)])
def test_groups_do_not_depend_on_the_processes(size: int, batch: int, world: int) -> None:
    """The mean over processes is the mean over groups of sum / (count + extra), and so is the gradient."""
    sums, counts = draws(batch).abs().requires_grad_(), torch.tensor([3.0, 0.0, 5.0, 2.0])[:batch]
    width = size or batch
    expected = torch.stack(
        [sums[i : i + width].sum() / (counts[i : i + width].sum() + 1) for i in range(0, batch, width)]
    ).mean()
    each = batch // world
    parts = [
        LossGroups(size, lambda rows: counts, rank).mean_ratio(
            sums[rank * each : (rank + 1) * each], counts[rank * each : (rank + 1) * each], extra=1.0
        )
        for rank in range(world)
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), expected)
    gradients = [torch.autograd.grad(value, sums, retain_graph=True)[0] for value in (sum(parts) / world, expected)]
    torch.testing.assert_close(*gradients)


def test_groups_that_do_not_fit() -> None:
    """The message names the key and the numbers."""
    with pytest.raises(UserError, match=r"loss\.group=2 .* micro-batch of 3 images"):
        LossGroups(2).mean_ratio(torch.ones(3), torch.ones(3))
