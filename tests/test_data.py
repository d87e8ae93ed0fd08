"""Lists, labels, data sets, transforms and the order of training batches."""

import json
import os
import pickle
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from common.data.augment import SeparateViews, posterize, short_side, square_view, train_transform
from common.data.classes import COCO14, VOC12
from common.data.csv_labels import csv_classes
from common.data.dataset import ImageSet, LabelledImages
from common.data.labels import read_labels, write_labels
from common.data.layout import LAYOUTS, DataConfig
from common.data.lists import LIST_DIR, canonical_id, find_list, read_list
from common.data.loader import EpochBatches, TrainViews, train_loader
from common.data.masks import read_mask, write_mask
from common.data.transforms import MEAN, STD, eval_transform, normalised_views, square_transform
from common.run.errors import UserError
from common.run.random import draws_from
from tests.datasets import make_voc, truncate, write_image, write_lines, write_xml

# --- lists


@pytest.mark.parametrize(
    ("line", "dataset", "expected"),
    [
        ("2007_000032", "voc12", "2007_000032"),
        ("/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png", "voc12", "2007_000032"),
        ("/JPEGImages/2007_000032.jpg", "voc12", "2007_000032"),
        ("JPEGImages/2007_000032.jpg", "voc12", "2007_000032"),
        ("2007_000032.jpg\r", "voc12", "2007_000032"),
        ("2007000032", "voc12", "2007_000032"),
        ("9", "coco14", "000000000009"),
        ("000000000009", "coco14", "000000000009"),
        ("COCO_train2014_000000000009", "coco14", "000000000009"),
        ("COCO_val2014_000000000009.jpg", "coco14", "000000000009"),
        ("train2014/COCO_train2014_000000000009.jpg", "coco14", "000000000009"),
        ("my picture 1.JPG", "folder", "my picture 1"),
        ("/etc/passwd", "folder", "passwd"),  # folders are dropped: only the data set's own are opened
        ("a.b.png", "folder", "a.b"),
        ("C:\\pictures\\x.png", "folder", "x"),
    ],
)
def test_spellings_of_an_id(tmp_path: Path, line: str, dataset: str, expected: str) -> None:
    assert read_list(write_lines(tmp_path / "list.txt", ["# comment", "", line]), dataset) == [expected]


@pytest.mark.parametrize(
    ("line", "dataset"),
    [
        ("../../secret", "folder"), ("/JPEGImages/../../x.jpg", "voc12"), ("..", "voc12"), ("..\\x", "folder"),
        (".hidden", "folder"), ("cat", "coco14"), ("1234567890123", "coco14"), ("-5", "coco14"), ("a\x07b", "folder"),
    ],
)  # fmt: skip
def test_entries_that_are_no_ids_are_named(tmp_path: Path, line: str, dataset: str) -> None:
    good = "2007_000032" if dataset != "coco14" else "9"
    with pytest.raises(UserError, match="line 2"):
        read_list(write_lines(tmp_path / "list.txt", [good, line]), dataset)


def test_integer_keys() -> None:
    assert canonical_id(2007000032, "voc12") == "2007_000032" and canonical_id(9, "coco14") == "000000000009"


def test_empty_missing_and_binary_lists(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name, message in (("empty.txt", "empty"), ("binary.txt", "UTF-16"), ("none.txt", "cannot be read")):
        if name == "empty.txt":
            write_lines(tmp_path / name, ["# nothing"])
        with pytest.raises(UserError, match=message):
            read_list(tmp_path / name, "voc12")


def test_own_lists_come_before_shipped_ones(tmp_path: Path) -> None:
    assert find_list("train_aug", "voc12", tmp_path) == LIST_DIR / "voc12" / "train_aug.txt"
    own = write_lines(tmp_path / "ImageSets" / "Segmentation" / "train.txt", ["2007_000032"])
    assert find_list("train", "voc12", tmp_path) == own and find_list(str(own), "voc12", tmp_path) == own
    with pytest.raises(UserError, match="train_aug"):
        find_list("trian", "voc12", tmp_path)


@pytest.mark.parametrize(
    ("dataset", "name", "count"),
    [("voc12", "train", 1464), ("voc12", "train_aug", 10582), ("voc12", "val", 1449), ("voc12", "test", 1456),
     ("coco14", "train14", 82783), ("coco14", "train14_small", 5208), ("coco14", "train14_unlabelled", 702),
     ("coco14", "val14", 40504), ("coco14", "val14_small", 2186)],
)  # fmt: skip
def test_shipped_lists(dataset: str, name: str, count: int) -> None:
    assert len(read_list(LIST_DIR / dataset / f"{name}.txt", dataset)) == count


# --- labels

CAT, PERSON = VOC12.index("cat"), VOC12.index("person")


def _hot(*classes: int, count: int = 20) -> np.ndarray:
    return np.isin(np.arange(count), classes).astype(np.float32)


def test_xml_labels(tmp_path: Path) -> None:
    write_xml(tmp_path / "2007_000001.xml", ["cat", "person", "head", "cat"])
    labels = read_labels(tmp_path, ["2007_000001"], VOC12, "voc12")
    np.testing.assert_array_equal(labels["2007_000001"], _hot(CAT, PERSON))
    with pytest.raises(UserError, match=r"2007_000002\.xml"):
        read_labels(tmp_path, ["2007_000002"], VOC12, "voc12")
    truncate(tmp_path / "2007_000001.xml")
    with pytest.raises(UserError, match="damaged"):
        read_labels(tmp_path, ["2007_000001"], VOC12, "voc12")


@pytest.mark.parametrize("key", ["2007_000032", 2007000032])
def test_npy_labels_with_text_and_integer_keys(tmp_path: Path, key: str | int) -> None:
    np.save(tmp_path / "cls_labels.npy", {key: _hot(CAT)})
    labels = read_labels(tmp_path / "cls_labels.npy", ["2007_000032"], VOC12, "voc12")
    np.testing.assert_array_equal(labels["2007_000032"], _hot(CAT))


class _Evil:
    def __reduce__(self) -> tuple:
        return os.system, ("touch pwned",)


def test_malicious_pickle_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("cls_labels.npy", {"2007_000032": _Evil()}, allow_pickle=True)
    with pytest.raises(UserError, match="run any code"):
        read_labels("cls_labels.npy", ["2007_000032"], VOC12, "voc12")
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(UserError):
        read_labels("raw.npy", ["2007_000032"], VOC12, "voc12")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("row", [_hot(1, count=80), np.full(20, 0.5), np.float32(1)])
def test_labels_of_another_data_set_are_refused(tmp_path: Path, row: np.ndarray) -> None:
    np.save(tmp_path / "cls_labels.npy", {"2007_000032": row})
    with pytest.raises(UserError, match="20 classes"):
        read_labels(tmp_path / "cls_labels.npy", ["2007_000032"], VOC12, "voc12")


def test_npz_labels(tmp_path: Path) -> None:
    labels = {"2007_000032": _hot(0, 14), "2007_000033": _hot()}
    write_labels(tmp_path / "labels.npz", labels)
    for image_id, row in read_labels(tmp_path / "labels.npz", labels, VOC12, "voc12").items():
        np.testing.assert_array_equal(row, labels[image_id])
    with pytest.raises(UserError, match=r"no labels for 1 of 1 images: 2007_000099"):
        read_labels(tmp_path / "labels.npz", ["2007_000099"], VOC12, "voc12")
    truncate(tmp_path / "labels.npz")
    with pytest.raises(UserError, match="damaged"):
        read_labels(tmp_path / "labels.npz", labels, VOC12, "voc12")


@pytest.mark.parametrize(
    "lines",
    [
        ["id,label", "a.jpg,cat;dog", "b,", "c,dog"],
        ["id,label", "a,0;1", "b", "c,1"],
        ["id,cat,dog", "a,1,1", "b.png,0,0", "c,0,1"],
    ],
)
def test_csv_labels_in_both_forms(tmp_path: Path, lines: list[str]) -> None:
    path = write_lines(tmp_path / "labels.csv", lines)
    labels = read_labels(path, ["a", "b", "c"], ["cat", "dog"], "folder")
    assert {key: row.tolist() for key, row in labels.items()} == {"a": [1, 1], "b": [0, 0], "c": [0, 1]}
    assert csv_classes(path) == (["0", "1"] if "0" in lines[1] else ["cat", "dog"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["id,label", "a,horse"], "row 2.*horse"), (["id,label", "a,cat", "a,dog"], "row 3.*already"),
        (["id,cat,dog", "a,1"], "row 2"), (["id,cat,dog", "a,1,2"], "row 2"), (["a,cat"], "header"),
        (["id,label", "../x,cat"], r"row 2.*\.\."), (["id,label", "a,7"], "row 2"),
    ],
)  # fmt: skip
def test_wrong_csv_rows_are_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_labels(write_lines(tmp_path / "labels.csv", lines), [], ["cat", "dog"], "folder")


def test_instances_labels_count_crowds(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 9}, {"id": 25}],
        "categories": [{"id": 3 * i} for i in reversed(range(80))],
        "annotations": [
            {"image_id": 9, "category_id": 6, "iscrowd": 1},
            {"image_id": 9, "category_id": 0, "iscrowd": 0},
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    labels = read_labels(path, ["000000000009", "000000000025"], COCO14, "coco14")
    np.testing.assert_array_equal(labels["000000000009"], _hot(0, 2, count=80))
    assert not labels["000000000025"].any()
    path.write_text(json.dumps({"images": []}))
    with pytest.raises(UserError, match="instances"):
        read_labels(path, [], COCO14, "coco14")


# --- data sets


def test_voc_with_labels_from_xml_and_shipped(tmp_path: Path) -> None:
    make_voc(tmp_path)
    images = LabelledImages(DataConfig(root=str(tmp_path)), "train")
    assert len(images) == 6 and images.labels.dtype == np.float32
    np.testing.assert_array_equal(images.labels[1], _hot(CAT, PERSON))
    assert images.load_image(0).size == (32, 24) and set(np.unique(images.load_mask(1))) == {0, 8, 15, 255}
    write_image(tmp_path / "JPEGImages" / "2007_000032.jpg")
    shipped = LabelledImages(DataConfig(root=str(tmp_path)), str(write_lines(tmp_path / "one.txt", ["2007_000032"])))
    np.testing.assert_array_equal(shipped.labels[0], _hot(VOC12.index("aeroplane"), PERSON))


@pytest.mark.parametrize(("name", "split"), [("train14_small", "train"), ("val14", "val")])
def test_coco_split_comes_from_the_list_name(tmp_path: Path, name: str, split: str) -> None:
    write_lines(tmp_path / f"{name}.txt", [9])
    write_image(tmp_path / f"{split}2014" / f"COCO_{split}2014_000000000009.jpg")
    write_labels(tmp_path / f"labels_{split}2014.npz", {"000000000009": _hot(3, count=80)})
    mask_path = tmp_path / "SegmentationClass" / f"{split}2014" / f"COCO_{split}2014_000000000009.png"
    write_mask(mask_path, np.full((24, 32), 4))
    images = LabelledImages(DataConfig(dataset="coco14", root=str(tmp_path)), name)
    assert images.mask_path(images.ids[0]) == mask_path and (images.load_mask(0) == 4).all()
    np.testing.assert_array_equal(images.labels[0], _hot(3, count=80))


def test_folder_with_mixed_extensions(tmp_path: Path) -> None:
    for i, suffix in enumerate(("jpg", "PNG", "webp")):
        write_image(tmp_path / "images" / f"img {i}.{suffix}", seed=i)
    write_lines(tmp_path / "labels.csv", ["id,label", "img 0.jpg,cat", "img 1,dog", "img 2,cat;dog"])
    images = LabelledImages(DataConfig(dataset="folder", root=str(tmp_path)), "all")
    assert images.ids == ["img 0", "img 1", "img 2"] and images.classes == ["cat", "dog"]
    assert images.labels.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert [images.load_image(i).mode for i in range(3)] == ["RGB"] * 3


def test_all_takes_every_image_of_the_folder(tmp_path: Path) -> None:
    """In every layout; other files in the folder do not count, and no labels are needed to open them without."""
    ids = make_voc(tmp_path / "voc")
    (tmp_path / "voc" / "JPEGImages" / "readme.txt").touch()
    voc = ImageSet(DataConfig(root=str(tmp_path / "voc")), "all")
    assert voc.ids == sorted(ids) and voc.labels is None and len(voc.classes) == 20
    coco_root = tmp_path / "coco"
    for number in (12, 9):
        write_image(coco_root / "train2014" / f"COCO_train2014_{number:012d}.jpg")
    assert ImageSet(DataConfig("coco14", str(coco_root)), "all").ids == [f"{n:012d}" for n in (9, 12)]
    write_image(tmp_path / "own" / "images" / "a.b.jpg")
    own = ImageSet(DataConfig("folder", str(tmp_path / "own")), "all")
    assert own.ids == ["a.b"] and own.classes == [] and own.load_image(0).size == (32, 24)
    with pytest.raises(UserError, match="labels"):
        LabelledImages(DataConfig("folder", str(tmp_path / "own")), "all")


def test_images_in_memory_are_the_same(tmp_path: Path) -> None:
    """Prepared once: the same view for the same draws, though the files are gone. A damaged file is named."""
    make_voc(tmp_path)
    opened = [ImageSet(DataConfig(root=str(tmp_path)), "train") for _ in range(2)]
    before, after = (TrainViews(images, SeparateViews(square_view(16)), seed=5) for images in opened)
    whole = [before[0, index] for index in range(6)]
    assert opened[1].keep_in_memory(short_side(16), threads=2) == 6 * 16 * 21 * 3
    shutil.rmtree(tmp_path / "JPEGImages")
    for index, ((view,), label, _) in enumerate(whole):
        assert torch.equal(after[0, index][0][0], view) and label.shape == (0,)
    assert view.shape == (3, 16, 16) and 0 <= view.min() < view.max() <= 1
    views = [after[epoch, 0][0][0] for epoch in range(8)]
    assert 0 < sum(torch.equal(view, views[0]) for view in views[1:]) < 7  # some are flipped
    with pytest.raises(UserError, match=r"2007_000001\.jpg cannot be decoded"):
        opened[0].keep_in_memory(short_side(16), threads=2)


def test_what_is_missing_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prepare_data\.py voc.*data\.root"):
        LabelledImages(DataConfig(root=str(tmp_path / "none")), "train")
    make_voc(tmp_path)
    (tmp_path / "JPEGImages" / "2007_000002.jpg").unlink()
    config = DataConfig(root=str(tmp_path))
    with pytest.raises(UserError, match=r"1 of the 6 images.*2007_000002\.jpg"):
        LabelledImages(config, "train")
    assert len(LabelledImages(config, "train", require_images=False).images) == 6
    with pytest.raises(UserError, match="no image labels at"):
        LabelledImages(DataConfig(root=str(tmp_path), labels="none.npy"), "val")


def test_damaged_and_coloured_files(tmp_path: Path) -> None:
    make_voc(tmp_path)
    images = LabelledImages(DataConfig(root=str(tmp_path)), "train")
    truncate(images.images[0])
    with pytest.raises(UserError, match=r"2007_000001\.jpg.*check_data"):
        images.load_image(0)
    Image.new("RGB", (4, 4)).save(tmp_path / "colours.png")
    with pytest.raises(UserError, match="mode RGB"):
        read_mask(tmp_path / "colours.png")
    with pytest.raises(UserError, match="cannot be read"):
        read_mask(tmp_path / "none.png")


def test_every_layout_is_complete() -> None:
    for layout in LAYOUTS.values():
        assert "{id}" in layout.image and "{id}" in layout.mask and layout.labels


# --- transforms


def test_posterize_with_no_bits_is_black() -> None:
    image = Image.new("RGB", (4, 4), (200, 100, 50))
    assert not np.asarray(posterize(image, 0)).any()
    assert np.asarray(posterize(image, 1)).max() == 128


def test_randaugment_never_fails() -> None:
    transform = train_transform(16, [0.3, 1.0], auto_augment="rand-m9-mstd0.5-inc1")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8))
    for i in range(500):
        with draws_from(i):
            assert transform(image).shape == (3, 16, 16)


def test_views_travel_as_bytes() -> None:
    """Normalised on the device they are bitwise timm's own; masks and boxes stay as they are."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8))
    theirs = create_transform(16, is_training=True, scale=(0.3, 1.0), interpolation="bicubic", color_jitter=None)
    ours = train_transform(16, [0.3, 1.0])
    for i in range(8):
        with draws_from(i):
            expected = theirs(image)
        with draws_from(i):
            pixels = ours(image)
        assert pixels.dtype == torch.uint8 and torch.equal(normalised_views([pixels], 3)[0], expected)
        assert torch.equal(normalised_views([pixels[None]], 4)[0], expected[None])
    others = [torch.zeros(3, 5, 5, dtype=torch.uint8), torch.tensor([0, 1, 2, 3]), torch.zeros(2, 3, 4, 4)]
    assert all(new is old for new, old in zip(normalised_views(others, 4), others, strict=True))


def test_evaluation_input_is_the_whole_normalised_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    tensor = eval_transform(Image.fromarray(pixels))
    assert tensor.shape == (3, 5, 7) and tensor.dtype == torch.float32
    restored = (tensor * STD + MEAN).mul(255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(restored, pixels)


@pytest.mark.parametrize("size", [(50, 31), (24, 24), (17, 90), (32, 32)])
def test_square_input_is_the_whole_image_resized(size: tuple[int, int]) -> None:
    """Whatever its aspect, up and down: torchvision's chain of the references, bilinear and antialiased."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    steps = [Resize((32, 32)), ToTensor(), Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    found = square_transform(image, 32)
    assert found.shape == (3, 32, 32) and found.dtype == torch.float32
    torch.testing.assert_close(found, Compose(steps)(image), rtol=1e-6, atol=1e-6)


# --- order of batches


def _indices(batches: EpochBatches) -> list[list[int]]:
    return [[index for _, index in batch] for batch in batches]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_global_batch_does_not_depend_on_processes_or_accumulation(accumulation: int) -> None:
    whole = _indices(EpochBatches(50, 8, seed=3))
    ranks = [_indices(EpochBatches(50, 8, 3, rank, 2, accumulation)) for rank in range(2)]
    assert len(whole) == 6 and all(len(part) == 6 * accumulation for part in ranks)
    for step, batch in enumerate(whole):
        micro = range(step * accumulation, (step + 1) * accumulation)
        assert [index for i in micro for rank in ranks for index in rank[i]] == batch


def test_epochs_differ_and_hold_every_image_once() -> None:
    batches = EpochBatches(24, 8, seed=0)
    first = list(chain(*_indices(batches)))
    batches.start_at(1)
    second = list(chain(*_indices(batches)))
    assert sorted(first) == sorted(second) == list(range(24)) and first != second


def test_batch_that_does_not_divide_or_is_too_large() -> None:
    with pytest.raises(UserError, match="multiple of 4"):
        EpochBatches(100, 10, 0, world=2, accumulation=2)
    with pytest.raises(UserError, match="only 5 images"):
        EpochBatches(5, 8, 0)


@pytest.mark.parametrize(("length", "accumulation"), [(21, 1), (23, 2), (24, 2)])
def test_the_incomplete_batch_is_cut_into_parts_of_about_one_size(length: int, accumulation: int) -> None:
    whole = EpochBatches(length, 8, seed=3, drop_last=False)
    parts = [EpochBatches(length, 8, 3, rank, 2, accumulation, drop_last=False) for rank in range(2)]
    batches, ranks = _indices(whole), [_indices(part) for part in parts]
    assert len(whole) == 3 and sorted(chain(*batches)) == list(range(length))
    assert batches[:2] == _indices(EpochBatches(length, 8, seed=3))[:2]
    for step, batch in enumerate(batches):
        micro = [rank[i] for i in range(step * accumulation, (step + 1) * accumulation) for rank in ranks]
        sizes = [len(part) for part in micro]
        assert list(chain(*micro)) == batch and max(sizes) - min(sizes) <= 1
        assert parts[0].mean_part(step) == sum(sizes) / len(sizes) and whole.mean_part(step) == len(batch)
    with pytest.raises(UserError, match=r"has 1 of train.batch_size=8 images, too few for 2 .*train.drop_last=true"):
        EpochBatches(25, 8, 0, world=2, drop_last=False)


@pytest.fixture
def views(tmp_path: Path) -> TrainViews:
    make_voc(tmp_path, count=12)
    transform = train_transform(16, [0.3, 1.0], auto_augment="rand-m9-mstd0.5-inc1")
    return TrainViews(
        LabelledImages(DataConfig(root=str(tmp_path)), "train"), SeparateViews(transform, transform), seed=5
    )


def _epoch(views: TrainViews, workers: int, epoch: int = 1, step: int = 0, rank: int = 0, world: int = 1) -> list:
    batches = EpochBatches(len(views.images), 4, seed=5, rank=rank, world=world)
    batches.start_at(epoch, step)
    return [(torch.stack(crops), label, index) for crops, label, index in train_loader(views, batches, workers, False)]


def _equal(first: list, second: list) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)
    )


def test_crops_do_not_depend_on_workers_or_the_callers_random_state(views: TrainViews) -> None:
    alone = _epoch(views, workers=0)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert _equal(alone, _epoch(views, workers=2))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(alone[0][0][0], alone[0][0][1])  # the two views are drawn independently
    assert not _equal(alone, _epoch(views, workers=0, epoch=2))


def test_resumption_in_mid_epoch_gives_the_rest(views: TrainViews) -> None:
    assert _equal(_epoch(views, workers=0)[2:], _epoch(views, workers=2, step=2))


def test_two_processes_see_the_crops_of_one(views: TrainViews) -> None:
    whole, ranks = _epoch(views, 0), [_epoch(views, 0, rank=rank, world=2) for rank in range(2)]
    for step, (crops, _, index) in enumerate(whole):
        assert torch.equal(crops, torch.cat([rank[step][0] for rank in ranks], dim=1))
        assert torch.equal(index, torch.cat([rank[step][2] for rank in ranks]))


def test_truncated_image_in_a_worker_is_one_clear_error(views: TrainViews) -> None:
    truncate(views.images.images[3])
    batches = EpochBatches(len(views.images), 4, seed=5)
    one_line = r"^the image (?!.*Traceback)[^\n]*2007_000004\.jpg cannot be decoded[^\n]*$"
    with pytest.raises(UserError, match=one_line):  # kept, the error would hold the loader, whose workers end in 10 s
        list(train_loader(views, batches, 2, False))
