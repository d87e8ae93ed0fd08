"""The one reader of images: every file becomes an RGB image of 8 bits, or one clear line.

Read are the formats of `FORMATS`, told by the content of a file, whatever its suffix, and the modes of 8 bits. What an
image has beyond that (transparency, an orientation in its EXIF data) is told by `describe_image`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from common.run.errors import UserError, first_line

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")  # Pillow's names; others may start programs, or hold no photographs
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")  # of 8 bits
PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}  # of 8 bits, too: colours times alpha
MOST_PIXELS = 2**25  # 8192 x 4096; as RGB they take 130 MB
LEAST_SIDE = 16  # pixels of an image that a network can make anything of: a patch
ORIENTATION = 0x0112  # the tag of EXIF
TURNS = {  # by the tag's value; 1: upright
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
VERBS = {"image": "decoded", "mask": "read"}
CHECK = "python scripts/check_data.py finds all such files."

STARTS = (  # how files begin that are no images read here, their kind, and what to do
    (b"GIF8", "a GIF", "Save it as PNG."),
    (b"\x93NUMPY", "a NumPy array", "Save it as PNG."),
    (b"%!PS", "a PostScript file", "Save it as PNG."),
    (b"%PDF", "a PDF", "Save it as PNG."),
    (b"8BPS", "a Photoshop file", "Save it as PNG."),
    (b"\0\0\0\x0cjP", "a JPEG 2000 file", "Save it as PNG."),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video", "Save its frames as PNG."),
    (b"\0\0\1\xba", "an MPEG video", "Save its frames as PNG."),
    (b"<", "a text such as a web page or an SVG", "Download the image itself."),
    (b"version https://git-lfs", "a git-lfs pointer, not the image itself", "Fetch it with git lfs pull."),
)


@dataclass(frozen=True)
class ImageRules:
    """How images are read where their files leave a choice.

    Attributes:
        exif: ``ignore`` or ``apply`` the orientation in the EXIF data.
        range: values that become 0 and 255, of images of more than 8 bits; empty: such images are refused.
    """

    exif: str = "ignore"
    range: tuple[float, ...] = ()


PLAIN = ImageRules()


@dataclass(frozen=True)
class ImageFile:
    """An image's file, and how it is read; for jobs in other processes."""

    path: Path
    rules: ImageRules = PLAIN

    def read(self) -> Image.Image:
        """As `read_image`."""
        return read_image(self.path, self.rules)

    def describe(self) -> "ImageFacts":
        """As `describe_image`."""
        return describe_image(self.path, self.rules)

    def size(self) -> tuple[int, int]:
        """As `image_size`."""
        return image_size(self.path, self.rules)


@dataclass(frozen=True)
class ImageFacts:
    """A decoded image.

    Attributes:
        size: (H, W), as it is read.
        orientation: of its EXIF data; 1: upright.
        is_transparent: whether its alpha channel hides anything.
    """

    size: tuple[int, int]
    orientation: int
    is_transparent: bool


def read_image(path: Path, rules: ImageRules = PLAIN) -> Image.Image:
    """An RGB image, decoded. Transparency is dropped: the colours behind it are read.

    Raises:
        UserError: missing, damaged or truncated, of another format, too large, or of more than 8 bits.
    """
    with opened(path, "image", FORMATS) as image:
        return _upright(_to_rgb(image, path, rules), image, rules)


def image_size(path: Path, rules: ImageRules = PLAIN) -> tuple[int, int]:
    """(H, W) as `read_image` gives them; the header alone is read.

    Raises:
        UserError: missing, damaged, of another format, or too large.
    """
    with opened(path, "image", FORMATS) as image:
        # 5 to 8 are quarter turns; of TIFFs Pillow gives the turned size
        turned = rules.exif == "apply" and image.format != "TIFF" and _orientation(image) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


def describe_image(path: Path, rules: ImageRules = PLAIN) -> ImageFacts:
    """Decodes an image and tells what is special about it.

    Raises:
        UserError: as `read_image`.
    """
    with opened(path, "image", FORMATS) as image:
        is_transparent = image.has_transparency_data and bool(np.asarray(image.convert("RGBA"))[..., 3].min() < 255)
        read = _upright(_to_rgb(image, path, rules), image, rules)
        return ImageFacts((read.height, read.width), _orientation(image), is_transparent)


@contextmanager
def opened(path: Path, noun: str, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """An open image file; an error in the block becomes a line that names it.

    Args:
        noun: for messages, such as "image".
        formats: that are read, by Pillow's names.

    Raises:
        UserError: missing, damaged, of another format, or too large.
    """
    try:
        with Image.open(path, formats=formats) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UserError(_too_large(path, noun, f"{image.width}x{image.height}"))
            yield image
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"the {noun} {path} cannot be {VERBS[noun]}: there is no such file; {CHECK}") from None
    except Image.UnidentifiedImageError as error:
        raise UserError(_unknown(path, noun, formats)) from error
    except Image.DecompressionBombError as error:
        raise UserError(_too_large(path, noun, "far too many")) from error
    except Exception as error:  # Pillow's decoders raise a dozen types for damaged files
        raise UserError(
            f"the {noun} {path} cannot be {VERBS[noun]} ({type(error).__name__}: {first_line(error)}). Is it complete? "
            f"Copy it again; {CHECK}"
        ) from error


def _too_large(path: Path, noun: str, size: str) -> str:
    return (
        f"the {noun} {path} has {size} pixels, more than the {MOST_PIXELS} that are read. Make it smaller, or "
        f"leave it out; {CHECK}"
    )


def _unknown(path: Path, noun: str, formats: tuple[str, ...]) -> str:
    """The message for a file that is of no format of the list."""
    with path.open("rb") as file:
        head = file.read(64)
    kind = "a damaged file or one of another format"
    advice = f"Copy it again, or save it as PNG; {CHECK}"
    if not head:
        kind = "empty"
    elif not head.strip(b"\0"):
        kind = "filled with zeros, as a broken copy leaves it"
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        kind = "an AVI video"
        advice = "Save its frames as PNG."
    elif head[4:8] == b"ftyp":
        kind = "a HEIC, AVIF or video file"
        advice = "Save it as PNG."
    for start, found, remedy in STARTS:
        if head.lstrip().startswith(start):
            kind = found
            advice = remedy
    return f"the {noun} {path} cannot be {VERBS[noun]}: it is {kind}; read are {', '.join(formats)}. {advice}"


def _to_rgb(image: Image.Image, path: Path, rules: ImageRules) -> Image.Image:
    """The image as RGB.

    Raises:
        UserError: it is of more than 8 bits, and no range is set.
    """
    image.info.pop("transparency", None)  # Pillow would warn of it
    if image.mode in PREMULTIPLIED:
        return image.convert(PREMULTIPLIED[image.mode]).convert("RGB")
    if image.mode in MODES:
        return image.convert("RGB")
    values = np.asarray(image)
    if values.ndim != 2:
        raise UserError(f"the image {path} is of mode {image.mode}, which is not read. Save it as RGB; {CHECK}")
    found = f"the image {path} is of mode {image.mode}, not of 8 bits, with values {values.min():g} to {values.max():g}"
    if not rules.range:
        raise UserError(
            f"{found}. Set data.range=[lo,hi], the values that become black and white, the same for all images; or "
            f"save it with 8 bits; {CHECK}"
        )
    low, high = rules.range
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.clip((values.astype(np.float64) - low) * (255 / (high - low)), 0, 255)
    if np.isnan(scaled).any():
        raise UserError(f"{found}, some of which are no numbers. Save it again without them; {CHECK}")
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")


def _orientation(image: Image.Image) -> int:
    """The orientation that an image's EXIF data tell, 1 to 8; 1: upright, or none is told."""
    value = image.getexif().get(ORIENTATION, 1)
    return value if isinstance(value, int) and value in (1, *TURNS) else 1


def _upright(read: Image.Image, image: Image.Image, rules: ImageRules) -> Image.Image:
    """The image turned as its EXIF data tell, if that is wanted."""
    turn = TURNS.get(_orientation(image)) if rules.exif == "apply" else None
    return read if turn is None else read.transpose(turn)
