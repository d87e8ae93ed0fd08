"""ToCo's labels from CAMs against hand-made cases and laws. (Numbers are compared in tests/golden.)"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.data.transforms import eval_transform
from methods.toco.config import LabelConfig
from methods.toco.labels import (
    affinity_mask,
    cam_to_label,
    denormalise,
    inside_boxes,
    present_classes,
    refined_label,
    roi_mask,
    truncated,
    uncertain_label,
)
from tests.golden.weights import image_batch

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = LabelConfig()
SIZE, CLASSES = 64, 6


def smooth_cams(batch: int, seed: int = 3, size: int = SIZE) -> Tensor:
    """CAMs (B, K, size, size) from 0 to nearly 1."""
    cams = torch.rand(batch, CLASSES, 4, 4, generator=torch.Generator().manual_seed(seed))
    cams = F.interpolate(cams, (size, size), mode="bilinear", align_corners=False)
    cams -= cams.amin((2, 3), keepdim=True)
    return cams / (cams.amax((2, 3), keepdim=True) + 1e-5)


def one_hot(*images: list[int]) -> Tensor:
    """Multi-hot labels."""
    labels = torch.zeros(len(images), CLASSES)
    for row, classes in zip(labels, images, strict=True):
        row[classes] = 1
    return labels


def whole(batch: int, size: int = SIZE) -> Tensor:
    """Boxes of images without padding."""
    return torch.tensor([0, size, 0, size]).expand(batch, 4)


# --- thresholds

# Scores of class 2, which is labelled, and of class 4, which is not.
SCORES = torch.tensor([0.0, 0.25, 0.26, 0.5, 0.51, 0.7, 0.71, 1.0])
CAMS = torch.zeros(1, CLASSES, 1, 8)
CAMS[0, 2, 0], CAMS[0, 4, 0] = SCORES, 1.0
LABELS = one_hot([2])


def test_thresholds() -> None:
    """Scores equal to a threshold are below it, except for foreground regions."""
    box = torch.tensor([[0, 1, 0, 8]])
    assert cam_to_label(CAMS, LABELS, CONFIG.bkg).tolist() == [[[0, 0, 0, 0, 3, 3, 3, 3]]]
    uncertain = uncertain_label(CAMS, LABELS, box, CONFIG, (1, 8))
    assert uncertain.tolist() == [[[0, 0, 255, 255, 255, 255, 3, 3]]] and uncertain.dtype == torch.int64
    assert roi_mask(CAMS, LABELS, CONFIG).tolist() == [[[0, 0, 1, 1, 1, 2, 2, 2]]]
    low_high = replace(CONFIG, high=0.4)  # below the background threshold: what lies between is background
    assert uncertain_label(CAMS, LABELS, box, low_high, (1, 8)).tolist() == [[[0, 0, 255, 0, 3, 3, 3, 3]]]


def test_the_strongest_labelled_class_wins() -> None:
    """By a loop over pixels."""
    cams, labels = smooth_cams(2), one_hot([0, 5], [1, 2, 3])
    label = cam_to_label(cams, labels, 0.5)
    for image, row, column in torch.cartesian_prod(torch.arange(2), *[torch.arange(0, SIZE, 9)] * 2).tolist():
        scores = {k: float(cams[image, k, row, column]) for k in labels[image].nonzero().flatten().tolist()}
        best = max(scores, key=scores.get)
        assert label[image, row, column] == (best + 1 if scores[best] > 0.5 else 0)


# --- boxes


def test_boxes_are_python_slices() -> None:
    """At full size, and with the image's pixels on a small grid, as in the reference."""
    boxes = torch.tensor([[0, 64, 0, 64], [5, 40, 0, 64], [30, 64, 7, 20], [3, 64, 17, 64], [10, 10, 0, 64]])
    for size in ((64, 64), (16, 16)):
        expected = torch.zeros(len(boxes), *size, dtype=torch.bool)
        for row, (top, bottom, left, right) in zip(expected, boxes.tolist(), strict=True):
            row[top:bottom, left:right] = True
        assert torch.equal(inside_boxes(boxes, size, size), expected)


def test_scaled_boxes() -> None:
    """A patch counts if its centre is in the box; the reference's way lets a padded image have no patch at all."""
    boxes = torch.tensor([[0, 64, 0, 64], [32, 64, 8, 40], [31, 57, 9, 64]])
    cams, labels = smooth_cams(3, size=16), one_hot([0], [1], [2])
    scaled = replace(CONFIG, scale_box=True)
    for config, rows, columns in (
        (scaled, [(0, 16), (8, 16), (8, 14)], [(0, 16), (2, 10), (2, 16)]),
        (CONFIG, [(0, 16), (16, 16), (16, 16)], [(0, 16), (8, 16), (9, 16)]),
    ):
        label = uncertain_label(cams, labels, boxes, config, (64, 64))
        plain = uncertain_label(cams, labels, whole(3, 16), config, (16, 16))
        for index, ((top, bottom), (left, right)) in enumerate(zip(rows, columns, strict=True)):
            expected = torch.full((16, 16), 255)
            expected[top:bottom, left:right] = plain[index, top:bottom, left:right]
            assert torch.equal(label[index], expected)
    full = smooth_cams(3)
    same = [uncertain_label(full, labels, boxes, config, (64, 64)) for config in (scaled, CONFIG)]
    assert torch.equal(*same)


def test_affinity_mask() -> None:
    """By pairs; equal background is a positive pair, the diagonal and ignored patches are none."""
    label_map = torch.tensor([[[0, 0, 3], [3, 255, 7]], [[1, 1, 1], [1, 1, 1]]])
    mask = affinity_mask(label_map)
    for image, flat in enumerate(label_map.flatten(1).tolist()):
        for i, first in enumerate(flat):
            for j, second in enumerate(flat):
                ignored = i == j or 255 in (first, second)
                assert mask[image, i, j] == (255 if ignored else int(first == second))


# --- images for PAR


def test_denormalised_images() -> None:
    """Bytes come back within rounding; truncation loses one at most, and never leaves the range."""
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3, 1)[:, None]  # 3 1 256
    normalised = eval_transform(pixels.permute(1, 2, 0).numpy())[None]
    torch.testing.assert_close(denormalise(normalised)[0], pixels.float(), rtol=0, atol=1e-4)
    lost = pixels.int() - truncated(normalised)[0].int()
    assert lost.unique().tolist() == [0, 1]  # float error makes 1 of some


# --- refined labels


def test_images_do_not_see_each_other() -> None:
    """Images with one, three and no classes, alone and together; padded classes do not appear."""
    images, cams, labels = image_batch(3, SIZE, SIZE), smooth_cams(3), one_hot([4], [0, 3, 5], [])
    boxes = torch.tensor([[0, 64, 0, 64], [8, 60, 0, 50], [0, 40, 3, 64]])
    together = refined_label(images, cams, labels, boxes, CONFIG)
    alone = [refined_label(*(part[i : i + 1] for part in (images, cams, labels, boxes)), CONFIG) for i in range(3)]
    assert torch.equal(together, torch.cat(alone)) and together.dtype == torch.int64
    found = [set(row.unique().tolist()) for row in together]
    assert found[0] == {0, 5, 255} and {1, 4, 6, 255} <= found[1] <= {0, 1, 4, 6, 255} and found[2] == {0, 255}
    assert (together[2, :40, 3:] == 0).all()


def test_padding_classes_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As accelerators do it: all images of a batch in one call, padded to the most classes."""
    images, cams, labels = image_batch(3, SIZE, SIZE), smooth_cams(3), one_hot([4], [0, 3, 5], [])
    expected = refined_label(images, cams, labels, whole(3), CONFIG)
    monkeypatch.setattr("methods.toco.labels.images_at_once", lambda images: len(images))
    assert torch.equal(refined_label(images, cams, labels, whole(3), CONFIG), expected)


def test_present_classes() -> None:
    """Ascending; the rest is padding."""
    classes, present = present_classes(one_hot([5, 1], [2], []))
    assert classes[0].tolist() == [1, 5] and classes[1, 0] == 2
    assert present.tolist() == [[True, True], [True, False], [False, False]]
    assert present_classes(one_hot([], []))[1].tolist() == [[False], [False]]


def test_refined_label_without_refinement() -> None:
    """The two thresholds and the box, from the definition."""
    config = replace(CONFIG, par_iterations=0, high=0.6, low=0.3)
    images, cams, labels = image_batch(1, SIZE, SIZE), smooth_cams(1), one_hot([1, 4])
    box = torch.tensor([[10, 64, 0, 33]])
    halved = F.avg_pool2d(cams[:, [1, 4]], 2)
    found = []
    for threshold in (0.6, 0.3):
        scores = torch.cat([torch.full_like(halved[:, :1], threshold), halved], dim=1).softmax(1)
        wide = F.interpolate(scores, (SIZE, SIZE), mode="bilinear", align_corners=False)
        found.append(torch.tensor([0, 2, 5])[wide.argmax(1)])
    high, low = found
    expected = high.clone()
    expected[high == 0] = 255
    expected[(high + low) == 0] = 0
    expected[:, :10], expected[:, :, 33:] = 255, 255
    computed = refined_label(images, cams, labels, box, config)
    assert torch.equal(computed, expected) and computed[:, 10:, :33].unique().tolist() == [0, 2, 5, 255]


def test_refinement_follows_the_image() -> None:
    """A CAM that ends beside an edge of the image is moved to it."""
    images = image_batch(1, SIZE, SIZE) * 0.05
    images[..., 40:] += 2
    cams = torch.zeros(1, CLASSES, SIZE, SIZE)
    cams[:, 2, :, :36] = 1
    label = refined_label(images, cams, one_hot([2]), whole(1), CONFIG)[0]
    assert (label[:, 36:39] == 3).float().mean() > 0.9 and not (label[:, 42:] == 3).any()
