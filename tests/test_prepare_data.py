"""Data preparation: archives, SBD masks, COCO masks and labels; no network is used."""

import hashlib
import io
import json
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle_tools

from common.data.cub import CUBConfig, CUBImages
from common.data.dataset import DataConfig, ImageSet, LabelledImages, read_mask
from common.data.labels import read_labels
from common.data.masks import voc_palette, write_mask
from common.data.prepare.coco import Region, paint_mask
from common.data.prepare.fetch import Archive, obtain, unpack
from common.data.prepare.matlab import read_struct_field
from common.run.errors import UserError
from common.run.files import load_npy
from tests.datasets import call, make_cub, make_voc, run, script, truncate, write_image

# --- archives


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """(address, folder served, Range headers seen) of a local server that knows ranges."""
    folder, ranges = tmp_path / "served", []
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            content, wanted = (folder / self.path[1:]).read_bytes(), self.headers.get("Range", "")
            start = int(wanted.removeprefix("bytes=").rstrip("-") or 0)
            ranges.append(wanted)
            self.send_response(416 if start >= len(content) else 206 if wanted else 200)
            self.send_header("Content-Length", str(max(len(content) - start, 0)))
            self.end_headers()
            self.wfile.write(content[start:])

        def log_message(self, *unused: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", folder, ranges
    httpd.shutdown()


def _served(server: tuple[str, Path, list[str]], content: bytes = b"x" * 5000) -> Archive:
    (server[1] / "a.tar").write_bytes(content)
    return Archive(f"{server[0]}/a.tar", hashlib.md5(content).hexdigest(), "5 kB")


def test_download_is_verified_and_renamed(server, tmp_path: Path) -> None:
    archive = _served(server)
    assert obtain([archive], tmp_path / "d") == [tmp_path / "d" / "a.tar"]
    assert not list((tmp_path / "d").glob("*.part"))
    obtain([archive], tmp_path / "d", download=False)  # found again


@pytest.mark.parametrize("have", [1234, 5000])
def test_download_goes_on_where_it_ended(server, tmp_path: Path, have: int) -> None:
    archive = _served(server)
    (tmp_path / "a.tar.part").write_bytes(b"x" * have)
    [path] = obtain([archive], tmp_path)
    assert path.stat().st_size == 5000 and server[2] == [f"bytes={have}-"]


def test_wrong_checksum_is_not_kept(server, tmp_path: Path) -> None:
    archive = Archive(_served(server).url, "0" * 32, "5 kB")
    with pytest.raises(UserError, match="MD5"):
        obtain([archive], tmp_path)
    assert not (tmp_path / "a.tar").exists() and not (tmp_path / "a.tar.part").exists()


def test_no_network_says_what_to_fetch(tmp_path: Path) -> None:
    archives = [Archive(f"http://127.0.0.1:9/{name}", "ab", "1 GB") for name in ("a.tar", "b.zip")]
    with pytest.raises(UserError, match=r"(?s)cannot be downloaded.*a\.tar.*b\.zip.*--archive"):
        obtain(archives, tmp_path)
    (tmp_path / "a.tar").write_bytes(b"half of it")
    with pytest.raises(UserError, match="incomplete"):
        obtain(archives, tmp_path)


def _tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil"])
def test_member_that_leads_out_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "tar":
        _tar(path, {name: b"x"})
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"x")
    with pytest.raises(UserError):
        unpack(path, tmp_path / "root" / "inner", lambda member: member)
    assert not list(tmp_path.rglob("evil"))


def test_truncated_archive_leaves_whole_files_only(tmp_path: Path) -> None:
    path = _tar(tmp_path / "a.tar", {f"f{i}": bytes([i]) * 20000 for i in range(4)})
    truncate(path)
    with pytest.raises(UserError, match="complete"):
        unpack(path, tmp_path / "out", lambda member: member)
    assert all(file.stat().st_size == 20000 for file in (tmp_path / "out").iterdir())


# --- VOC and SBD


def _element(kind: int, content: bytes) -> bytes:
    if len(content) <= 4:
        return struct.pack("<HH", kind, len(content)) + content.ljust(4, b"\0")
    return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8)


def _matrix(kind: int, shape: tuple[int, int], name: str, rest: bytes) -> bytes:
    flags, dimensions = struct.pack("<II", kind, 0), struct.pack("<ii", *shape)
    return _element(14, _element(6, flags) + _element(5, dimensions) + _element(1, name.encode()) + rest)


def mat_file(mask: np.ndarray, compressed: bool = True) -> bytes:
    """A MATLAB 5 file with SBD's struct: GTcls.Boundaries, .Segmentation, .CategoriesPresent."""
    numbers = _element(2, mask.astype(np.uint8).tobytes(order="F"))
    present = _matrix(6, (1, 1), "", _element(2, b"\x03"))
    fields = _matrix(1, (0, 0), "", b"") + _matrix(9, mask.shape, "", numbers) + present
    names = b"".join(name.ljust(32, b"\0") for name in (b"Boundaries", b"Segmentation", b"CategoriesPresent"))
    variable = _matrix(2, (1, 1), "GTcls", _element(5, struct.pack("<i", 32)) + _element(1, names) + fields)
    if compressed:
        packed = zlib.compress(variable)
        variable = struct.pack("<II", 15, len(packed)) + packed
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM" + variable


@pytest.mark.parametrize("compressed", [True, False])
def test_matlab_reader(tmp_path: Path, compressed: bool) -> None:
    mask, path = np.random.default_rng(0).integers(0, 21, (13, 7)).astype(np.uint8), tmp_path / "a.mat"
    path.write_bytes(mat_file(mask, compressed))
    np.testing.assert_array_equal(read_struct_field(path, "GTcls", "Segmentation"), mask)
    assert read_struct_field(path, "GTcls", "CategoriesPresent").item() == 3
    with pytest.raises(UserError, match=r"GTcls\.Boundaries"):
        read_struct_field(path, "GTcls", "Boundaries")
    truncate(path)
    with pytest.raises(UserError, match=r"damaged|no numeric"):
        read_struct_field(path, "GTcls", "Segmentation")


def test_voc_from_archives_fetched_by_hand(tmp_path: Path, monkeypatch, capsys) -> None:
    source, root = tmp_path / "source", tmp_path / "VOC2012"
    make_voc(source)
    devkit = {f"VOCdevkit/VOC2012/{p.relative_to(source)}": p.read_bytes() for p in source.rglob("*") if p.is_file()}
    devkit["VOCdevkit/VOC2012/ImageSets/Action/jumping.txt"] = b"not wanted"
    sbd_mask = np.full((24, 32), 3)
    sbd = {f"benchmark_RELEASE/dataset/cls/{name}.mat": mat_file(sbd_mask) for name in ("2007_000001", "2008_000123")}
    voc, benchmark = _tar(tmp_path / "VOCtrainval_11-May-2012.tar", devkit), _tar(tmp_path / "benchmark.tgz", sbd)
    arguments = ("voc", "--root", root, "--archive", voc, "--archive", benchmark, "--workers", 1)
    with pytest.raises(UserError, match="MD5"):
        call(monkeypatch, "prepare_data", *arguments)
    for _ in range(2):  # the second run finds everything
        call(monkeypatch, "prepare_data", *arguments, "--skip-checksum")
    assert "7 images; 0 compared" in capsys.readouterr().out  # none of these ids is in an official list
    assert not (root / "ImageSets" / "Action").exists()
    assert (read_mask(root / "SegmentationClassAug" / "2008_000123.png") == 3).all()
    official = read_mask(root / "SegmentationClass" / "2007_000001.png")
    np.testing.assert_array_equal(read_mask(root / "SegmentationClassAug" / "2007_000001.png"), official)
    labels = LabelledImages(DataConfig(root=str(root), labels="labels.npz"), "train").labels
    np.testing.assert_array_equal(labels, LabelledImages(DataConfig(root=str(source)), "train").labels)


def test_voc_labels_are_compared_with_the_shipped_ones(tmp_path: Path, monkeypatch, capsys) -> None:
    root = tmp_path / "VOC2012"
    make_voc(root)
    xml = root / "Annotations" / "2007_000001.xml"
    xml.rename(xml.with_name("2007_000032.xml"))  # officially aeroplane and person, here a cat
    call(monkeypatch, "prepare_data", "voc", "--root", root, "--no-download", "--no-sbd")
    out = capsys.readouterr().out
    assert "1 DIFFER: 2007_000032" in out and not (root / "SegmentationClassAug").exists()


def test_palette_is_vocs() -> None:
    assert voc_palette()[[0, 1, 2, 15, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192],
    ]  # fmt: skip


def test_masks_survive_writing(tmp_path: Path) -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "m.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), mask)


# --- COCO


def _square(x: float, y: float, side: float) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def test_painting_rules() -> None:
    large, small = _square(0, 0, 16), _square(4, 4, 4)
    crowd = {"size": [20, 20], "counts": [0, 400]}  # everything
    regions = [Region(5, [small], False, 1), Region(2, [large], False, 2), Region(7, crowd, True, 3)]
    mask, skipped = paint_mask((20, 20), regions)
    assert (mask[5, 5], mask[1, 1], mask[18, 18], skipped) == (6, 3, 8, {})
    assert paint_mask((20, 20), regions, ignore_crowds=True)[0][18, 18] == 255
    same = [Region(1, [small], False, 9), Region(0, [small], False, 10)]
    assert paint_mask((20, 20), same)[0][5, 5] == paint_mask((20, 20), same[::-1])[0][5, 5] == 1  # the larger id on top


def test_all_spellings_of_a_segmentation() -> None:
    polygon = _square(3, 2, 7)
    packed = rle_tools.merge(rle_tools.frPyObjects([polygon], 20, 30))
    as_json = {"size": packed["size"], "counts": packed["counts"].decode()}
    expected = rle_tools.decode(packed)
    for spelling in ([polygon], as_json):
        np.testing.assert_array_equal(paint_mask((20, 30), [Region(0, spelling, False, 1)])[0], expected)
    mask, skipped = paint_mask((20, 30), [Region(0, [polygon, [1, 1, 9, 9]], False, 1), Region(3, [], False, 2)])
    np.testing.assert_array_equal(mask, expected)
    assert skipped == {"polygons of fewer than three points": 1, "annotations without a segmentation": 1}


def make_coco(folder: Path, classes: int = 80) -> Path:
    """An instances JSON and images: 9 with two objects and a crowd, 25 with nothing."""
    from common.data.classes import COCO14

    for number in (9, 25):
        write_image(folder / "images" / f"{number:012d}.jpg", size=(24, 32), seed=number)
    crowd = {"size": [24, 32], "counts": [700, 68]}
    content = {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "height": 24, "width": 32} for i in (9, 25)],
        "categories": [{"id": 2 * i + 1, "name": COCO14[i]} for i in reversed(range(classes))],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 1, "iscrowd": 0, "segmentation": [_square(2, 2, 6)]},
            {"id": 2, "image_id": 9, "category_id": 5, "iscrowd": 0, "segmentation": [_square(0, 0, 12)]},
            {"id": 3, "image_id": 9, "category_id": 7, "iscrowd": 1, "segmentation": crowd},
        ],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def _coco(folder: Path, root: Path, *more: object) -> tuple:
    source = ("--json", folder / "instances.json", "--images", folder / "images")
    return "coco", "--root", root, "--split", "train", *source, "--workers", 1, *more


def test_coco_like_set_becomes_usable(tmp_path: Path, monkeypatch, capsys) -> None:
    folder, root = make_coco(tmp_path / "source"), tmp_path / "COCO2014"
    call(monkeypatch, "prepare_data", *_coco(folder, root))
    images = LabelledImages(DataConfig(dataset="coco14", root=str(root)), "train")
    assert images.ids == ["000000000009", "000000000025"]
    assert [set(np.flatnonzero(row)) for row in images.labels] == [{0, 2, 3}, set()]
    mask = images.load_mask(0)
    assert mask.shape == (24, 32) and set(np.unique(mask)) == {0, 1, 3, 4} and not images.load_mask(1).any()
    assert images.load_image(1).size == (32, 24)
    capsys.readouterr()
    write_mask(images.mask_path("000000000025"), np.full((24, 32), 9))
    call(monkeypatch, "prepare_data", *_coco(folder, root))
    assert "0 masks painted, 2 were there" in capsys.readouterr().out  # finished masks are not made again
    assert (images.load_mask(1) == 9).all()
    with pytest.raises(UserError, match="--overwrite"):
        call(monkeypatch, "prepare_data", *_coco(folder, root, "--crowd", "ignore"))
    call(monkeypatch, "prepare_data", *_coco(folder, root, "--crowd", "ignore", "--overwrite"))
    assert set(np.unique(images.load_mask(0))) == {0, 1, 3, 255} and not images.load_mask(1).any()


def test_other_classes_get_a_class_file(tmp_path: Path, monkeypatch) -> None:
    folder, root = make_coco(tmp_path / "source", classes=4), tmp_path / "mini"
    call(monkeypatch, "prepare_data", *_coco(folder, root))
    config = DataConfig(dataset="coco14", root=str(root), classes=str(root / "classes.txt"))
    assert ImageSet(config, "train").classes == ["person", "bicycle", "car", "motorcycle"]


def test_standard_layout_and_reference_label_file(tmp_path: Path, monkeypatch) -> None:
    folder, root = make_coco(tmp_path / "source"), tmp_path / "COCO2014"
    for split in ("train", "val"):
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        (root / "annotations" / f"instances_{split}2014.json").write_text((folder / "instances.json").read_text())
        for number in (9, 25):
            write_image(root / f"{split}2014" / f"COCO_{split}2014_{number:012d}.jpg")
    call(monkeypatch, "prepare_data", "coco", "--root", root, "--no-download", "--workers", 1)
    assert set(load_npy(root / "cls_labels_coco.npy")) == {9, 25}
    assert ImageSet(DataConfig(dataset="coco14", root=str(root)), "val").images[0].parent.name == "val2014"


def test_official_counts_are_checked(tmp_path: Path, capsys, monkeypatch) -> None:
    from common.data import lists
    from common.data.classes import COCO14
    from common.data.prepare.coco import Instances

    prepare = script("prepare_data")
    ids = lists.read_list(lists.LIST_DIR / "coco14" / "train14.txt", "coco14")
    empty = set(lists.read_list(lists.LIST_DIR / "coco14" / "train14_unlabelled.txt", "coco14"))
    instances = Instances(tmp_path / "x.json", list(COCO14), dict.fromkeys(ids, ""), {}, {})
    labels = {image_id: np.full(80, image_id not in empty, np.float32) for image_id in ids}
    monkeypatch.setattr(prepare, "read_labels", lambda *unused: labels)
    prepare.label_coco(tmp_path, "train", instances)
    assert "WARNING" not in capsys.readouterr().out
    labels[ids[5]] = 1 - labels[ids[5]]
    prepare.label_coco(tmp_path, "train", instances)
    assert "WARNING: 82080 labelled images, expected 82081" in capsys.readouterr().out
    assert len(read_labels(tmp_path / "labels_train2014.npz", ids, COCO14, "coco14")) == 82783


def test_damaged_json_and_missing_images(tmp_path: Path, monkeypatch) -> None:
    folder, root = make_coco(tmp_path / "source"), tmp_path / "COCO2014"
    (folder / "images" / "000000000025.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 2 images are missing.*000000000025"):
        call(monkeypatch, "prepare_data", *_coco(folder, root))
    truncate(folder / "instances.json")
    with pytest.raises(UserError, match=r"instances\.json is no JSON, or damaged"):
        call(monkeypatch, "prepare_data", *_coco(folder, root))
    with pytest.raises(UserError, match="--split"):
        call(monkeypatch, "prepare_data", "coco", "--root", root, "--json", folder / "instances.json")


# --- CUB


@pytest.fixture
def cub_archive(tmp_path: Path) -> Path:
    """As the official one is packed, with other tables and folders beside those that are wanted."""
    source = make_cub(tmp_path / "source")
    files = {f"CUB_200_2011/{p.relative_to(source)}": p.read_bytes() for p in source.rglob("*") if p.is_file()}
    others = ("CUB_200_2011/README", "CUB_200_2011/parts/parts.txt", "CUB_200_2011/attributes/classes.txt")
    files |= dict.fromkeys((*others, "attributes.txt"), b"1 x")
    return _tar(tmp_path / "CUB_200_2011.tgz", files)


def test_cub_from_an_archive_fetched_by_hand(cub_archive: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    root = tmp_path / "CUB_200_2011"
    arguments = ("cub", "--root", root, "--archive", cub_archive)
    with pytest.raises(UserError, match=r"MD5.*97eceeb196236b17998738112f37df78"):
        call(monkeypatch, "prepare_data", *arguments)
    assert not root.exists()
    for _ in range(2):  # the second run finds everything
        call(monkeypatch, "prepare_data", *arguments, "--skip-checksum")
        assert "3 training and 2 test images, NOT the official" in capsys.readouterr().out
        cub_archive.unlink(missing_ok=True)
    there = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    source = tmp_path / "source"
    assert there == {Path("README"), *(path.relative_to(source) for path in source.rglob("*") if path.is_file())}
    images = CUBImages(CUBConfig(str(root)), "train")
    assert (images.boxes == CUBImages(CUBConfig(str(source)), "train").boxes).all()
    assert images.images[0].read_bytes() == (source / images.images[0].relative_to(root)).read_bytes()


def test_interrupted_unpacking_of_cub_goes_on(cub_archive: Path, tmp_path: Path, monkeypatch) -> None:
    root = tmp_path / "CUB_200_2011"
    arguments = ("cub", "--root", root, "--archive", cub_archive, "--skip-checksum")
    call(monkeypatch, "prepare_data", *arguments)
    images = [root / "images" / name for name in ("001.Wren/Wren_0001_11.jpg", "003.Great_Auk/Great_Auk_0001_31.jpg")]
    kept = images[0].stat().st_mtime_ns
    for lost in (images[1], root / "bounding_boxes.txt"):
        lost.unlink()
        with pytest.raises(UserError, match=f"1 file.* missing: .*{lost.name}.*--no-download"):
            call(monkeypatch, "prepare_data", "cub", "--root", root, "--no-download")
        call(monkeypatch, "prepare_data", *arguments)
        assert lost.is_file() and images[0].stat().st_mtime_ns == kept


def test_cub_without_a_network(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(script("prepare_data"), "CUB", Archive("http://127.0.0.1:9/CUB_200_2011.tgz", "ab", "1 GB"))
    with pytest.raises(UserError, match=r"(?s)cannot be downloaded.*MD5 ab.*--archive /path/to/CUB_200_2011\.tgz"):
        call(monkeypatch, "prepare_data", "cub", "--root", tmp_path / "CUB_200_2011")


def test_exit_code_and_message(tmp_path: Path) -> None:
    done = run("prepare_data", "voc", "--root", tmp_path / "none", "--no-download")
    assert done.returncode == 1 and done.stderr.startswith("error: no folder")
