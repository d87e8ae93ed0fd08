"""Masks that mean something else than the image labels are warned of, and masks of other forms can be converted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.classes import COCO14, COCO_IDS, VOC12
from common.data.masks import is_renumbered, read_mask, voc_palette, write_mask
from common.data.prepare.mask_files import convert_masks, parse_map
from common.run.errors import UserError
from common.score.evaluate import evaluate
from common.score.mask_meaning import MaskMeaning
from common.score.options import EvalConfig
from tests.helpers import assert_same

RNG = np.random.default_rng(0)


def findings(classes: tuple[str, ...], changed: Callable[[int], int], share: float = 1, images: int = 40) -> list[str]:
    """What is found where a share of masks has changed labels; every image has two classes and ignored pixels."""
    meaning = MaskMeaning(classes)
    for index in range(images):
        named = sorted({index % len(classes), (3 * index + 1) % len(classes)})
        values = [label + 1 for label in named]
        meaning.add([0, *(changed(v) if index < share * images else v for v in values), 255], named)
    return meaning.findings()


def test_masks_that_agree_are_not_doubted() -> None:
    """A few differences are no sign, and images without labels count for their values alone."""
    assert not findings(VOC12, lambda label: label) and not findings(COCO14, lambda label: label)
    assert not findings(VOC12, lambda label: label % 20 + 1, share=0.15)
    meaning = MaskMeaning(VOC12)
    meaning.add([0, 255], None)
    meaning.add([0, 7], None)
    assert not meaning.findings() and not MaskMeaning(VOC12).findings()


@pytest.mark.parametrize(("classes", "changed", "words"), [
    (VOC12, lambda label: label % 20 + 1, r"different classes for 40 of 40 images \(100%\).*same order"),
    (VOC12, lambda label: 255, "values 0 and 255 alone.*--map 255=1"),
    (COCO14, lambda label: COCO_IDS[label - 1], "official category ids.*--map coco"),
    (VOC12, lambda label: 0 if label == 5 else label, r"no mask of these images: bottle \(\d images\)"),
])  # fmt: skip
def test_masks_of_other_numbers_are_found(classes: tuple[str, ...], changed: Callable, words: str) -> None:
    assert any(__import__("re").search(words, text) for text in findings(classes, changed))


def test_official_ids_below_81_are_found() -> None:
    """They are within the labels of COCO, so that nothing else tells."""
    meaning = MaskMeaning(COCO14)
    for index in range(11, 60):  # 13 to 70
        meaning.add([0, COCO_IDS[index]], [index])
    assert max(meaning.seen) < 81 and "--map coco" in meaning.findings()[0]


def test_an_evaluation_warns(tmp_path: Path) -> None:
    """With the counts of all processes' images; the warning is in the JSON, too."""
    masks = {str(index): np.full((4, 4), index % 3 + 1, np.uint8) for index in range(12)}
    classes = ["cat", "dog", "cow"]
    labels = {image_id: (int(mask[0, 0]) - 1,) for image_id, mask in masks.items()}

    def result(image_labels: dict[str, tuple[int, ...]]) -> list[str]:
        found = evaluate(
            list(masks), lambda image_id, shape: masks[image_id], masks.__getitem__, classes, EvalConfig(), "png",
            image_labels=image_labels, progress=False,
        )  # fmt: skip
        assert found.as_dict()["warnings"] == found.warnings()
        return found.findings

    assert not result(labels) and not result({})
    wrong = {image_id: ((indices[0] + 1) % 3,) for image_id, indices in labels.items()}
    assert "different classes for 12 of 12 images" in result(wrong)[0] and "cat (4 images)" in result(wrong)[1]


MASK = np.zeros((6, 8), np.uint8)
MASK[1:3, 1:4] = 15
MASK[4, 2:] = 8
MASK[0] = 255
COLOURS = voc_palette()[MASK]


def renumbered() -> Image.Image:
    """The mask with a palette of its own, as programs write it."""
    used, places = np.unique(MASK, return_inverse=True)
    image = Image.fromarray(places.reshape(MASK.shape).astype(np.uint8)).convert("L")
    image.putpalette(voc_palette()[used].tobytes())
    return image


def test_renumbered_colours_are_seen(tmp_path: Path) -> None:
    """Of palettes that have VOC's colours in another order; other palettes and grey values mean nothing."""
    write_mask(tmp_path / "own.png", MASK)
    Image.fromarray(MASK).save(tmp_path / "grey.png")
    other = Image.fromarray(MASK).convert("L")
    other.putpalette(RNG.integers(1, 30, 768, dtype=np.uint8).tobytes())
    other.save(tmp_path / "other.png")
    renumbered().save(tmp_path / "renumbered.png")
    Image.fromarray(COLOURS).quantize(8).save(tmp_path / "quantised.png")
    found = {path.stem for path in tmp_path.iterdir() if is_renumbered(path)}
    assert found == {"renumbered", "quantised"}


def test_masks_of_every_lossless_form_are_converted(tmp_path: Path) -> None:
    """Into palette PNGs of the same labels; existing ones stay."""
    source = tmp_path / "source"
    source.mkdir()
    Image.fromarray(COLOURS).save(source / "colours.png")
    Image.fromarray(COLOURS).convert("RGBA").save(source / "alpha.png")
    Image.fromarray(MASK).convert("LA").save(source / "grey_alpha.png")
    Image.fromarray(np.dstack([MASK] * 3)).save(source / "equal.bmp")
    Image.fromarray(MASK.astype(np.uint16)).save(source / "bits16.png")
    Image.fromarray(MASK.astype(np.int32)).save(source / "bits32.tif")
    np.save(source / "array.npy", MASK.astype(np.int64))
    write_mask(source / "own.png", MASK)
    summary = convert_masks(source, tmp_path / "target", {}, False, 1)
    assert "8 masks written, 0 were there; labels 0, 8, 15, 255" in summary
    for path in (tmp_path / "target").iterdir():
        assert_same(read_mask(path), MASK)
    assert "0 masks written, 8 were there" in convert_masks(source, tmp_path / "target", {}, False, 1)


def test_labels_are_replaced_and_colours_restored(tmp_path: Path) -> None:
    for name, image in (("a", renumbered()), ("b", Image.fromarray(COLOURS).quantize(8))):
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "m.png")
        convert_masks(tmp_path / name, tmp_path / f"{name}2", {}, True, 1)
        assert_same(read_mask(tmp_path / f"{name}2" / "m.png"), MASK)
        convert_masks(tmp_path / f"{name}2", tmp_path / f"{name}3", parse_map("255=1,15=0"), False, 1)
        assert set(np.unique(read_mask(tmp_path / f"{name}3" / "m.png")).tolist()) == {0, 1, 8}
    assert parse_map("coco")[90] == 80 and parse_map("coco")[13] == 12 and len(parse_map("coco")) == 80


@pytest.mark.parametrize(("image", "words"), [
    (Image.fromarray(RNG.integers(1, 9, (6, 8, 3), dtype=np.uint8)), "colours that VOC's palette lacks"),
    (Image.fromarray(MASK.astype(np.uint16) * 4), "labels beyond 0 to 255"),
    (Image.fromarray(MASK.astype(np.float32)), "of mode F"),
])  # fmt: skip
def test_masks_that_cannot_be_converted(tmp_path: Path, image: Image.Image, words: str) -> None:
    """Nothing is guessed."""
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "m.png" if image.mode != "F" else tmp_path / "a" / "m.tif")
    with pytest.raises(UserError, match=rf"the mask .*m\.\w+ .*{words}"):
        convert_masks(tmp_path / "a", tmp_path / "b", {}, False, 1)
    for text in ("1", "a=b", "1=256", "1=2=3"):
        with pytest.raises(UserError, match="write OLD=NEW"):
            parse_map(text)
    for source, target, reason in (("none", "b", "no folder"), ("a", "a", "is --source itself")):
        with pytest.raises(UserError, match=reason):
            convert_masks(tmp_path / source, tmp_path / target, {}, False, 1)
