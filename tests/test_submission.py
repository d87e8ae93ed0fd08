"""The archive for VOC's server, read back, and everything that must not get into it."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.masks import voc_palette, write_mask
from common.masks.submission import write_submission
from common.run.errors import UserError
from tests.datasets import write_image
from tests.helpers import fill_disk

SIZE = (24, 32)


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """Image files by id; their masks, with all labels from 0 to 20, are in ``masks``."""
    ids = [f"2008_{number:06d}" for number in range(30)]
    for number, image_id in enumerate(ids):
        labels = np.random.default_rng(number).integers(0, 21, SIZE, dtype=np.uint8)
        write_mask(tmp_path / "masks" / f"{image_id}.png", labels)
    return {image_id: write_image(tmp_path / "images" / f"{image_id}.jpg", SIZE) for image_id in ids}


def test_the_archive_read_back(images: dict[str, Path], tmp_path: Path) -> None:
    """A palette PNG of the image's size for every image, in the server's folders, and nothing else."""
    write_mask(tmp_path / "masks" / "of_another_list.png", np.full((1, 1), 255, np.uint8))
    write_submission(tmp_path / "masks", images, tmp_path / "a" / "test.tar")
    with tarfile.open(tmp_path / "a" / "test.tar") as tar:
        found = {entry.name: tar.extractfile(entry).read() for entry in tar.getmembers()}
    assert list(found) == [f"results/VOC2012/Segmentation/comp6_test_cls/{image_id}.png" for image_id in images]
    for number, content in enumerate(found.values()):
        assert content[24:26] == bytes([8, 3])  # 8 bits, palette
        with Image.open(io.BytesIO(content)) as mask:
            assert mask.mode == "P" and mask.size == SIZE[::-1]
            assert mask.getpalette() == voc_palette().ravel().tolist()
            expected = np.random.default_rng(number).integers(0, 21, SIZE, dtype=np.uint8)
            assert (np.array(mask) == expected).all()


def test_other_competition_and_same_bytes(images: dict[str, Path], tmp_path: Path) -> None:
    """comp5 has a folder of its own; packing again gives the same file."""
    for name in ("one.tar", "two.tar"):
        write_submission(tmp_path / "masks", images, tmp_path / name, "comp5")
    with tarfile.open(tmp_path / "one.tar") as tar:
        assert {Path(name).parent.name for name in tar.getnames()} == {"comp5_test_cls"}
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def labelled(value: int) -> Callable[[Path], None]:
    """Puts a label into a mask."""

    def damage(path: Path) -> None:
        labels = np.array(Image.open(path))
        labels[3, 3] = value
        write_mask(path, labels)

    return damage


def saved(mode: str, **how: int) -> Callable[[Path], None]:
    """Saves a mask in another form."""
    return lambda path: Image.open(path).convert(mode).save(path, **how)


def in_grey_palette(path: Path) -> None:
    """Gives a mask other colours."""
    mask = Image.open(path)
    mask.putpalette([value for grey in range(256) for value in (grey, grey, grey)])
    mask.save(path)


def in_four_bits(path: Path) -> None:
    """Saves a mask of few labels in less than 8 bits a pixel."""
    mask = Image.fromarray(np.zeros(SIZE, np.uint8))
    mask.putpalette(voc_palette().tobytes())
    mask.save(path, bits=4)


def cut(path: Path) -> None:
    """Leaves the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, "missing: "),
        (labelled(255), "has label 255; the server takes 0 to 20"),
        (labelled(21), "has label 21"),
        (saved("L"), "is no PNG with a palette and 8 bits"),
        (saved("RGB"), "is no PNG with a palette and 8 bits"),
        (in_four_bits, "is no PNG with a palette and 8 bits"),
        (in_grey_palette, "has a palette of other colours"),
        (lambda path: write_mask(path, np.zeros((32, 24), np.uint8)), "is of 24x32 pixels, its image of 32x24"),
        (lambda path: path.write_bytes(b"nothing"), "is no PNG"),
        (cut, "cannot be read"),
    ],
)
def test_what_the_server_would_refuse(
    damage: Callable[[Path], None], words: str, images: dict[str, Path], tmp_path: Path
) -> None:
    """The mask is named; nothing is written, and an archive that was there stays."""
    masks, archive = tmp_path / "masks", tmp_path / "test.tar"
    archive.write_bytes(b"before")
    damage(masks / "2008_000007.png")
    with pytest.raises(UserError) as error:
        write_submission(masks, images, archive)
    lines = str(error.value).splitlines()
    assert lines[0] == "1 of 30 masks cannot be submitted:" and len(lines) == 2
    assert lines[1].startswith("  2008_000007: ") and words in lines[1]
    assert archive.read_bytes() == b"before"


def test_all_that_is_wrong_is_counted(images: dict[str, Path], tmp_path: Path) -> None:
    """And the first of it named."""
    with pytest.raises(UserError, match=r"^30 of 30 masks cannot(.|\n)*2008_000019(.|\n)*  and 10 more$"):
        write_submission(tmp_path / "nowhere", images, tmp_path / "test.tar")
    with pytest.raises(UserError, match="0 of 0 masks"):
        write_submission(tmp_path / "masks", {}, tmp_path / "test.tar")
    assert not (tmp_path / "test.tar").exists()


def test_a_full_disk_leaves_no_archive(
    images: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, 4000)
    with pytest.raises(UserError, match=r"could not write .*test\.tar"):
        write_submission(tmp_path / "masks", images, tmp_path / "test.tar")
    assert not list(tmp_path.glob("*test.tar*"))
