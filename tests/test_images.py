"""Images and masks as people have them: the right pixels, or one line with the file, the reason and the remedy."""

import io
import struct
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.dataset import ImageSet
from common.data.images import MOST_PIXELS, ImageRules, describe_image, image_size, read_image
from common.data.layout import DataConfig
from common.data.masks import read_mask, voc_palette, write_mask
from common.data.sizes import require_sizes
from common.data.whole import size_batches
from common.run.config import load_config, section
from common.run.errors import UserError
from common.run.processes import Processes
from tests.helpers import assert_same


@dataclass
class Sections:
    data: DataConfig = section(DataConfig)


RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 255, (40, 60, 3), dtype=np.uint8)
RAMP = np.linspace(0, 65535, 2400).reshape(40, 60).astype(np.uint16)
MASK = np.zeros((40, 60), np.uint8)
MASK[5:20, 5:30] = 15
MASK[22:30, 5:30] = 8
MASK[5, 5:30] = 255


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand; ``rows`` are packed."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp", "a.jpg"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA", "CMYK"])
def test_modes_of_8_bits_are_read(tmp_path: Path, name: str, mode: str) -> None:
    """Whatever the suffix; the colours are those of Pillow's own conversion."""
    image = Image.fromarray(RGB).convert(mode)
    kind = {"a.png": "PNG", "a.bmp": "BMP", "a.tif": "TIFF", "a.webp": "WEBP", "a.jpg": "JPEG"}[name]
    try:
        image.save(tmp_path / "x.jpg", kind, **({"lossless": True} if kind == "WEBP" else {}))
    except OSError:
        pytest.skip(f"{kind} has no mode {mode}")
    found = read_image(tmp_path / "x.jpg")
    assert found.mode == "RGB" and image_size(tmp_path / "x.jpg") == (40, 60)
    if kind not in ("JPEG", "WEBP"):
        assert_same(np.asarray(found), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(("name", "values"), [
    ("x.png", RAMP), ("x.tif", RAMP), ("x.tif", (RAMP / 65535).astype(np.float32)), ("x.tif", RAMP.astype(np.int32)),
])  # fmt: skip
def test_more_than_8_bits_are_refused_or_scaled(tmp_path: Path, name: str, values: np.ndarray) -> None:
    """By mode and range; the range that is set becomes black and white, and values beyond are cut."""
    Image.fromarray(values).save(tmp_path / name)
    top = "65535" if values.max() > 1 else "1"
    with pytest.raises(UserError, match=rf"{name} is of mode \S+, not of 8 bits, with values 0 to {top}.*data\.range"):
        read_image(tmp_path / name)
    found = np.asarray(read_image(tmp_path / name, ImageRules(range=(0, float(values.max()) / 2))))
    expected = np.rint(np.clip(values / (values.max() / 2), 0, 1) * 255).astype(np.uint8)
    assert np.abs(found[..., 1].astype(int) - expected).max() <= 1 and len(np.unique(found)) == 256


def test_ranges_are_checked() -> None:
    """On the command line, before any image is opened; and 8 bits are never scaled."""
    for wrong in ("[5]", "[{}, 1]", "[1,0]", "[0,.inf]", "[.nan,1]", "[0,1,2]"):
        with pytest.raises(UserError, match=r"data\.range.*(two finite numbers|it must be finite|list)"):
            load_config(Sections, overrides=[f"data.range={wrong}"])
    config = load_config(Sections, overrides=["data.range=[0,65535]", "data.exif=apply"]).data
    assert config.range == [0, 65535] and config.exif == "apply"


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, np.nan]], np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(UserError, match="no numbers"):
        read_image(tmp_path / "x.tif", ImageRules(range=(0, 1)))


def damaged() -> dict[str, tuple[bytes, str]]:
    jpeg, gif = io.BytesIO(), io.BytesIO()
    Image.fromarray(RGB).save(jpeg, "JPEG")
    Image.fromarray(RGB).save(gif, "GIF")
    return {
        "truncated": (jpeg.getvalue()[:900], "truncated"),
        "empty": (b"", "it is empty"),
        "zeros": (bytes(900), "filled with zeros"),
        "page": (b"\n<html>404</html>", "a web page"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "git-lfs pointer"),
        "gif": (gif.getvalue(), "a GIF"),
        "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "a PostScript file"),
        "heic": (b"\0\0\0\x18ftypheic" + bytes(50), "a HEIC"),
        "avi": (b"RIFF\x10\0\0\0AVI LIST" + bytes(50), "an AVI video"),
        "mkv": (b"\x1aE\xdf\xa3" + bytes(50), "a Matroska or WebM video"),
        "noise": (b"\x07" * 500, "a damaged file or one of another format"),
        "bomb": (png(20_000, 20_000, 8, 0, zlib.compress(b"")), "more than"),
        "large": (png(MOST_PIXELS // 100, 101, 1, 0, b""), rf"{MOST_PIXELS // 100}x101 pixels, more than"),
        "data": (png(60, 40, 8, 2, b"\0" * 50), "image file is truncated"),
    }


@pytest.mark.parametrize("name", damaged())
def test_other_files_are_called_by_their_kind(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, as image and as mask; no program such as Ghostscript is started."""
    monkeypatch.setattr(subprocess, "Popen", None)
    content, words = damaged()[name]
    (tmp_path / "x.jpg").write_bytes(content)
    for read in (read_image, image_size, describe_image, read_mask):
        if name in ("truncated", "data") and read is image_size:
            continue  # the header is sound
        with pytest.raises(
            UserError, match=rf"^the (image|mask) .*x\.jpg .*{words}|is a JPEG file|is of mode RGB"
        ) as caught:
            read(tmp_path / "x.jpg")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "none.jpg")


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_ignored_or_applied(tmp_path: Path, name: str, orientation: int) -> None:
    """All eight; the size in the header agrees with the image. TIFF has the tag itself: Pillow always applies it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"tiffinfo": {0x0112: orientation}} if name == "x.tif" else {"exif": exif}
    plain = Image.fromarray(RGB[:20, :30])
    plain.save(tmp_path / name, **options, **({"lossless": True} if name == "x.webp" else {}))
    stored = np.asarray(plain) if name != "x.jpg" else np.asarray(Image.open(tmp_path / name))
    turned = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1), 7: stored[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(stored),
    }[orientation]  # fmt: skip
    expected = {"ignore": turned if name == "x.tif" else stored, "apply": turned}
    for exif_rule, pixels in expected.items():
        rules = ImageRules(exif=exif_rule)
        assert_same(np.asarray(read_image(tmp_path / name, rules)), pixels)
        facts = describe_image(tmp_path / name, rules)
        assert image_size(tmp_path / name, rules) == facts.size == pixels.shape[:2]
        assert facts.orientation == (1 if name == "x.tif" else orientation)


def test_an_image_set_reads_by_its_rules(tmp_path: Path) -> None:
    """In memory and from jobs in other processes, too."""
    (tmp_path / "images").mkdir()
    Image.fromarray(RAMP).save(tmp_path / "images" / "a.png")
    for rule, value in (([0, 65535], 255), ([0, 131070], 128)):
        images = ImageSet(DataConfig("folder", str(tmp_path), range=rule), "all")
        assert np.asarray(images.load_image(0)).max() == np.asarray(images.file(0).read()).max() == value
        images.keep_in_memory(lambda image: image, 1)
        assert np.asarray(images.load_image(0)).max() == value


@pytest.mark.parametrize("alpha", [255, 9])
def test_transparency_is_dropped_and_told(tmp_path: Path, alpha: int) -> None:
    content = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    content[3, 3, 3] = alpha
    Image.fromarray(content).save(tmp_path / "x.png")
    assert_same(np.asarray(read_image(tmp_path / "x.png")), RGB)
    assert describe_image(tmp_path / "x.png").is_transparent == (alpha < 255)


@pytest.mark.parametrize("sides", [(15, 40), (400, 2), (1, 1)])
def test_images_that_are_too_small_are_named_before_any_work(tmp_path: Path, sides: tuple[int, int]) -> None:
    """Before the first batch of a training or an inference, with damaged headers, from the headers alone."""
    (tmp_path / "images").mkdir()
    for name, size in (("a", (20, 30)), ("b", sides), ("c", (16, 16)), ("d", sides)):
        Image.fromarray(RNG.integers(0, 255, (*size, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{name}.png")
    images = ImageSet(DataConfig("folder", str(tmp_path)), "all")
    too_small = rf"images/b\.png is of {sides[1]}x{sides[0]} pixels, too small.*at least 16"
    with pytest.raises(UserError, match=too_small):
        size_batches(images, 1)
    (tmp_path / "images" / "c.png").write_bytes(b"")
    with pytest.raises(UserError, match=rf"{too_small}.*c\.png cannot be decoded: it is empty.*d\.png is of"):
        require_sizes(images, Processes())


# --- masks


def test_masks_are_label_indices(tmp_path: Path) -> None:
    """Palette and grey as they are, black and white as 0 and 1, grey values of 2 and 4 bits without scaling."""
    write_mask(tmp_path / "m.png", MASK)
    assert_same(read_mask(tmp_path / "m.png"), MASK)
    Image.fromarray(MASK).save(tmp_path / "m.png")
    assert_same(read_mask(tmp_path / "m.png"), MASK)
    Image.fromarray(MASK > 0).save(tmp_path / "m.png")
    assert_same(read_mask(tmp_path / "m.png"), (MASK > 0).astype(np.uint8))
    for bits, row in ((2, b"\x1b"), (4, b"\x01\x23")):
        for colour in (0, 3):
            content = png(4, 1, bits, colour, b"\0" + row)
            if colour == 3:
                palette = (
                    struct.pack(">I", 12) + b"PLTE" + bytes(12) + struct.pack(">I", zlib.crc32(b"PLTE" + bytes(12)))
                )
                content = content[:33] + palette + content[33:]
            (tmp_path / "m.png").write_bytes(content)
            assert read_mask(tmp_path / "m.png").tolist() == [[0, 1, 2, 3]]


COLOURS = voc_palette()[MASK]
OTHER_MASKS = {
    "colours": (Image.fromarray(COLOURS), "PNG", "of mode RGB"),
    "colours and alpha": (Image.fromarray(COLOURS).convert("RGBA"), "PNG", "of mode RGBA"),
    "grey and alpha": (Image.fromarray(MASK).convert("LA"), "PNG", "of mode LA"),
    "16 bits": (Image.fromarray(MASK.astype(np.uint16)), "PNG", "of mode I;16"),
    "a JPEG": (Image.fromarray(MASK), "JPEG", "a JPEG file, whose compression changes labels"),
    "a TIFF": (Image.fromarray(MASK), "TIFF", "a TIFF file"),
}


@pytest.mark.parametrize("name", OTHER_MASKS)
def test_other_masks_are_refused_with_advice(tmp_path: Path, name: str) -> None:
    image, kind, words = OTHER_MASKS[name]
    image.save(tmp_path / "m.png", kind)
    with pytest.raises(UserError, match=rf"the mask .*m\.png is .*{words}.*prepare_data\.py masks"):
        read_mask(tmp_path / "m.png")
