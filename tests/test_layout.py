"""Which of COCO's two folders an image, its mask and its labels come from."""

from pathlib import Path

import numpy as np
import pytest

from common.data.dataset import ImageSet, LabelledImages
from common.data.labels import write_labels
from common.data.layout import SPLITS, DataConfig, mask_paths, splits_in_name
from common.data.masks import write_mask
from common.run.errors import UserError
from common.score.files import MaskFiles
from tests.datasets import write_image, write_lines

IDS = {"train": "000000000009", "val": "000000000025"}


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("val14", ("val",)), ("train14_small", ("train",)), ("train_eval", ("train",)), ("train2014", ("train",)),
        ("my-val.small", ("val",)), ("Val", ("val",)), ("interval", SPLITS), ("trainval", SPLITS), ("training", SPLITS),
        ("validation", SPLITS), ("train_val", SPLITS), ("masks", SPLITS), ("", SPLITS),
    ],
)  # fmt: skip
def test_whole_words_tell_the_split(name: str, splits: tuple[str, ...]) -> None:
    assert splits_in_name(name) == splits


@pytest.fixture
def coco(tmp_path: Path) -> DataConfig:
    """One image of each split, with a mask of label 1 (train) or 2 (val) and the class of that label."""
    for number, (split, image_id) in enumerate(IDS.items()):
        name = f"COCO_{split}2014_{image_id}"
        write_image(tmp_path / f"{split}2014" / f"{name}.jpg")
        write_mask(tmp_path / "SegmentationClass" / f"{split}2014" / f"{name}.png", np.full((24, 32), number + 1))
        write_labels(tmp_path / f"labels_{split}2014.npz", {image_id: np.eye(80, dtype=np.float32)[number]})
    return DataConfig(dataset="coco14", root=str(tmp_path))


def images_of(config: DataConfig, name: str, *splits: str) -> LabelledImages:
    """The images of a list file of that name, which has one image of each split."""
    return LabelledImages(config, str(write_lines(Path(config.root) / name, [IDS[split] for split in splits])))


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("interval.txt", ["train"]), ("interval.txt", ["val"]), ("train_eval.txt", ["train"]), ("val14.txt", ["val"]),
        ("trainval.txt", ["train", "val"]), ("train_val.txt", ["val", "train"]), ("test.txt", ["val"]),
    ],
)  # fmt: skip
def test_images_masks_and_labels_are_of_one_split(coco: DataConfig, name: str, splits: list[str]) -> None:
    images = images_of(coco, name, *splits)
    masks = MaskFiles(coco, images.list_name)
    assert [path.parent.name for path in images.images] == [f"{split}2014" for split in splits]
    for index, split in enumerate(splits):
        label = SPLITS.index(split)
        assert (images.load_mask(index) == label + 1).all() and (masks(images.ids[index]) == label + 1).all()
        assert images.labels[index].nonzero()[0].tolist() == [label]


def test_a_split_that_is_told_is_not_searched_for(coco: DataConfig) -> None:
    """By the list's name or by data.split; the image of the other split is missing."""
    with pytest.raises(UserError, match=r"1 of the 1 images .* missing: .*train2014/COCO_train2014_000000000025\.jpg"):
        images_of(coco, "train_eval.txt", "val")
    coco.split = "val"
    assert images_of(coco, "train_eval.txt", "val").images[0].parent.name == "val2014"
    with pytest.raises(UserError, match=r"val2014/COCO_val2014_000000000009\.jpg"):
        images_of(coco, "trainval.txt", "train")


def test_all_is_the_training_folder_unless_told(coco: DataConfig) -> None:
    assert ImageSet(coco, "all").ids == [IDS["train"]]
    coco.split = "val"
    assert ImageSet(coco, "all").ids == [IDS["val"]]


@pytest.mark.parametrize(
    ("folder", "splits"),
    [("training/val2014", ["val"]), ("val/train2014", ["train"]), ("training/masks", ["train", "val"])],
)
def test_the_last_folder_of_the_masks_tells_the_split(tmp_path: Path, folder: str, splits: list[str]) -> None:
    """Folders above it do not count; where it tells nothing, the files do."""
    for split in splits:
        write_mask(tmp_path / folder / f"COCO_{split}2014_{IDS[split]}.png", np.full((2, 2), 1))
    list_file = write_lines(tmp_path / "trainval.txt", [IDS[split] for split in splits])
    config = DataConfig(dataset="coco14")
    masks = MaskFiles(config, str(list_file), str(tmp_path / folder))
    assert all((masks(image_id) == 1).all() for image_id in masks.ids)
    told = mask_paths(config, str(list_file), str(tmp_path / folder) + "/").splits
    assert told == (tuple(splits) if len(splits) == 1 else SPLITS)
    config.split = "val"
    assert mask_paths(config, "train14", str(tmp_path / folder)).path("x").name == "COCO_val2014_x.png"


def test_unique_images_are_those_named_first(coco: DataConfig) -> None:
    assert images_of(coco, "trainval.txt", "val", "train", "val", "train").unique() == [0, 1]
