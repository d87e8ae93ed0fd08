"""DeepLab's crops, whole images and training masks. (Pixel values of the reference are compared in tests/golden.)"""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.dataset import DataConfig, ImageSet
from common.data.masks import write_mask
from common.data.transforms import eval_transform
from common.masks.options import CAFFE_MEAN_BGR, MaskViewConfig
from common.masks.training import TrainingMasks
from common.masks.views import Crop, MaskViews, draw_crop, input_transform
from common.pipeline.builders import mask_advice
from common.run.errors import UserError
from tests.datasets import make_voc

SCALES = [0.5, 0.75, 1.0, 1.25, 1.5]
MEAN = torch.tensor(CAFFE_MEAN_BGR).view(3, 1, 1)


def grid(height: int, width: int) -> tuple[Image.Image, np.ndarray]:
    """An image whose red and green are row and column, and labels that say the same modulo 100."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows, columns, np.full_like(rows, 7)], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels), ((rows + columns) % 100).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(400, 281), (90, 500), (50, 40)])
def test_draws_in_the_order_of_the_reference(height: int, width: int) -> None:
    """Scale, row, column, flip, all from Python's generator; rows and columns also where there is no choice."""
    config = MaskViewConfig()
    for seed in range(40):
        random.seed(seed)
        crop = draw_crop(height, width, config)
        state = random.getstate()
        random.seed(seed)
        scale = random.choice(SCALES)
        padded = [max(int(length * scale), 321) for length in (height, width)]
        start = random.randint(0, padded[0] - 321), random.randint(0, padded[1] - 321)
        assert crop == Crop(scale, (int(height * scale), int(width * scale)), start, random.random() < 0.5)
        assert state == random.getstate()


def test_every_draw_occurs_and_nothing_else_is_drawn() -> None:
    """All scales, the first and last place, both directions; other generators are left alone."""
    random.seed(0)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    config = MaskViewConfig(crop_size=20)
    crops = [draw_crop(40, 22, config) for _ in range(600)]
    assert {crop.scale for crop in crops} == set(SCALES) and {crop.flip for crop in crops} == {True, False}
    same = [crop.start for crop in crops if crop.scale == 1]
    assert {row for row, _ in same} == set(range(21)) and {column for _, column in same} == {0, 1, 2}
    MaskViews(config)(grid(40, 22))
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002


def test_image_and_labels_stay_together() -> None:
    """At scale 1 every pixel keeps its label, cropped at the place drawn and mirrored or not."""
    image, labels = grid(80, 90)
    views = MaskViews(MaskViewConfig(crop_size=32))
    for flip in (False, True):
        pixels, cropped = views.crop(np.asarray(image), labels, Crop(1.0, (80, 90), (17, 40), flip))
        assert pixels.dtype == torch.float32 and cropped.dtype == torch.uint8 and pixels.is_contiguous()
        blue, green, red = (pixels + MEAN).round().int()
        assert (blue == 7).all() and torch.equal((green + red) % 100, cropped.int())
        first, last = green[0, 0].item(), green[0, -1].item()
        assert (first, last, red[0, 0].item()) == ((71, 40, 17) if flip else (40, 71, 17))


@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_a_scaled_image_and_its_labels_stay_together(scale: float) -> None:
    """Labels are whole numbers of the nearest pixel, the image lies between its neighbours."""
    image, _ = grid(80, 90)
    labels = np.asarray(image)[..., 0]  # the row
    crop = Crop(scale, (int(80 * scale), int(90 * scale)), (3, 5), True)
    pixels, cropped = MaskViews(MaskViewConfig(crop_size=24)).crop(np.asarray(image), labels, crop)
    assert (pixels[2] + MEAN[2] - cropped).abs().max() <= 1


def test_padding_is_the_mean_and_ignored() -> None:
    """Below and to the right; the scaled image is whole."""
    image, labels = grid(30, 50)
    pixels, cropped = MaskViews(MaskViewConfig(crop_size=40)).crop(
        np.asarray(image), labels, Crop(0.5, (15, 25), (0, 0), False)
    )
    assert pixels.shape == (3, 40, 40) and (cropped[:15, :25] != 255).all()
    outside = torch.ones(40, 40, dtype=torch.bool)
    outside[:15, :25] = False
    assert (cropped[outside] == 255).all() and not pixels[:, outside].any()
    assert (pixels[:, ~outside] != 0).all()


def test_forms_of_the_input() -> None:
    """Caffe's: BGR minus its mean; ImageNet's: what all other methods take, also in the crops."""
    image, labels = grid(40, 50)
    caffe = input_transform("caffe")(image) + MEAN
    assert torch.allclose(caffe, torch.from_numpy(np.array(image))[..., [2, 1, 0]].permute(2, 0, 1).float())
    torch.testing.assert_close(input_transform("imagenet")(image), eval_transform(image), rtol=1e-4, atol=1e-5)
    whole = Crop(1.0, (40, 50), (0, 0), False)
    for name in ("caffe", "imagenet"):
        views = MaskViews(MaskViewConfig(input=name, crop_size=60))
        pixels, _ = views.crop(np.asarray(image), labels, whole)
        torch.testing.assert_close(pixels[:, :40, :50], input_transform(name)(image))
        assert not pixels[:, 40:].any()


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """Six images with labels 0, 8, 15 and 255."""
    monkeypatch.chdir(tmp_path)
    make_voc(Path("voc"))
    return ImageSet(DataConfig(root="voc"), "train")


def test_masks_of_a_folder_or_by_a_pattern(images: ImageSet) -> None:
    for place in ("voc/SegmentationClass", "voc/SegmentationClass/{id}.png"):
        image, labels = TrainingMasks(images, place, 21).load(1)
        assert image.mode == "RGB" and (labels == images.load_mask(1)).all()


def test_missing_masks_are_counted(images: ImageSet) -> None:
    """One error that says how many, which, and what makes them."""
    folder = Path("voc/SegmentationClass")
    for image_id in images.ids[1:3]:
        (folder / f"{image_id}.png").unlink()
    words = r"2 of the 6 masks of list 'train' are missing: .*000002\.png.*infer_irn\.py.*--infer_list train;"
    with pytest.raises(UserError, match=words):
        TrainingMasks(images, str(folder), 21, mask_advice("train"))
    with pytest.raises(UserError, match="6 of the 6 masks"):
        TrainingMasks(images, "nowhere", 21)
    with pytest.raises(UserError, match=r"--masks is missing.*infer_irn\.py"):
        TrainingMasks(images, "", 21, mask_advice("train"))


def test_masks_that_do_not_fit(images: ImageSet) -> None:
    """Another size, labels of another data set, no label indices: the file is named."""
    masks = TrainingMasks(images, "voc/SegmentationClass", 21)
    write_mask(masks.paths[0], np.zeros((24, 31), np.uint8))
    write_mask(masks.paths[1], np.full((24, 32), 21, np.uint8))
    Image.new("RGB", (32, 24)).save(masks.paths[2])
    wrong = (
        (r"000001\.png is of 31x24 pixels, its image of 32x24", 0), (r"000002\.png: the mask has label 21", 1),
        (r"000003\.png is of mode RGB", 2),
    )  # fmt: skip
    for words, index in wrong:
        with pytest.raises(UserError, match=words):
            masks.load(index)
