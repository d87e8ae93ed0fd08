"""DeepLab's losses, scores and CRF images, against their definitions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.masks.losses import cross_entropy, resized_targets
from common.masks.options import CAFFE_MEAN_BGR
from common.masks.scores import segmentation_scores
from common.score.counts import ConfusionCounts
from methods.deeplab.crf_image import clean_image, wrapped_image
from methods.deeplab.losses import DeepLabStep
from tests.methods.test_deeplab_model import tiny

pytestmark = pytest.mark.usefixtures("one_thread")


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(0, 200).map(lambda n: 2 * n + 1)] * 2), st.tuples(*[st.integers(1, 60)] * 2))
def test_labels_are_resized_as_by_pil(size: tuple[int, int], small: tuple[int, int]) -> None:
    """For crops of odd sides, which never have two nearest pixels, down or up."""
    labels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    expected = np.asarray(Image.fromarray(labels).resize(small[::-1], Image.Resampling.NEAREST))
    assert (resized_targets(torch.from_numpy(labels)[None], small)[0].numpy() == expected).all()


def test_cross_entropy_pixel_by_pixel() -> None:
    """The mean over the valid pixels of all images together, at the logits' size."""
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 3, 5), torch.randint(4, (2, 24, 40)).to(torch.uint8)
    labels[0, :, :20], labels[1, :8] = 255, 255
    values = []
    for image, row, column in np.ndindex(2, 3, 5):
        label = int(labels[image, 8 * row + 4, 8 * column + 4])
        if label != 255:
            values.append(-logits[image, :, row, column].log_softmax(0)[label])
    assert 10 < len(values) < 30
    torch.testing.assert_close(cross_entropy(logits, labels), torch.stack(values).mean())


def test_a_micro_batch_without_any_valid_pixel() -> None:
    """Counts as 0, without gradient, instead of NaN."""
    logits = torch.randn(1, 4, 3, 3, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 9, 9), 255, dtype=torch.uint8))
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_the_total_is_the_sum_of_four() -> None:
    """Each output against labels of its own size; named by their scales."""
    model, images = tiny(), torch.randn(2, 3, 49, 64)
    labels = torch.randint(7, (2, 49, 64)).to(torch.uint8)
    step = DeepLabStep(model)
    losses = step(images, labels)
    assert list(losses) == ["total", "x1", "x0.5", "x0.75", "max"] and step.terms == list(losses)[1:]
    for name, logits in zip(step.terms, model.outputs(images), strict=True):
        target = F.interpolate(labels[:, None].double(), logits.shape[-2:], mode="nearest-exact")[:, 0].long()
        torch.testing.assert_close(losses[name], F.cross_entropy(logits, target))
    torch.testing.assert_close(losses["total"], sum(losses[name] for name in step.terms))


def test_scores_by_counting() -> None:
    """Label 3 is predicted, but not there: left out of the means; label 4 is neither: no IoU."""
    rng = np.random.default_rng(0)
    gt, prediction = rng.integers(0, 3, (40, 50), dtype=np.uint8), rng.integers(0, 4, (40, 50), dtype=np.uint8)
    gt[:5] = 255
    counts = ConfusionCounts(5)
    counts.add(prediction, gt)
    valid = gt != 255
    iou, recall, share = {}, {}, {}
    for label in range(4):
        true, found = (gt == label) & valid, (prediction == label) & valid
        iou[label] = (true & found).sum() / (true | found).sum()
        if true.any():
            recall[label], share[label] = (true & found).sum() / true.sum(), true.sum() / valid.sum()
    scores = segmentation_scores(counts)
    assert scores.class_iou[:4] == pytest.approx(list(iou.values())) and np.isnan(scores.class_iou[4])
    assert iou[3] == 0 and scores.mean_iou == pytest.approx(np.mean([iou[label] for label in range(3)]))
    assert scores.pixel_accuracy == pytest.approx((gt == prediction)[valid].mean())
    assert scores.mean_accuracy == pytest.approx(np.mean(list(recall.values())))
    assert scores.frequency_weighted_iou == pytest.approx(sum(share[label] * iou[label] for label in share))
    content = scores.as_dict("abcde")
    assert content["Class IoU"]["e"] is None and content["Class IoU"]["d"] == 0
    assert f"{100 * scores.mean_iou:.2f} mean IoU" in str(scores)


def test_what_the_crf_sees() -> None:
    """The mean-subtracted BGR values, cut towards 0 and wrapped into a byte; or the image, in BGR."""
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    expected = np.zeros_like(image)
    for place in np.ndindex(image.shape):
        value = float(image[place[:2]][2 - place[2]]) - CAFFE_MEAN_BGR[place[2]]
        expected[place] = int(value) % 256
    assert (wrapped_image(image) == expected).all() and wrapped_image(image).flags.c_contiguous
    assert wrapped_image(np.full((1, 1, 3), 101, np.uint8)).ravel().tolist() == [253, 241, 235]
    assert (clean_image(image) == image[..., ::-1]).all()
