"""Image ids and the lists that name them.

An id is the file name of an image without folder and extension. For VOC it is ``YYYY_NNNNNN``, for COCO 14 the image
number in 12 digits. A list has one image per line; every spelling found in public lists is read:

    2007_000032                                                       a bare id
    /JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png   the papers' VOC lists (first column counts)
    JPEGImages/2007_000032.jpg,SegmentationClass/2007_000032.png        the same with a comma
    Annotations/2007_000032.xml   2007_000032.npy                       another file of the image
    9   000000000009   COCO_train2014_000000000009.jpg                  COCO

Empty lines do not count, nor does a line or the end of a line after " # ". Flags of classes behind an id, as in VOC's
ImageSets/Main, are refused: such a list has every image, whether it shows the class or not.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from common.run.errors import UserError, preview
from common.run.files import ROOT
from common.run.similar import did_you_mean
from common.run.text import read_lines

LIST_DIR = ROOT / "data" / "lists"
NO_LISTS = ("classes", "labels")  # text files that lie beside lists
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
OTHER_SUFFIXES = (".xml", ".npy", ".npz", ".mat")  # of an image's annotation, seed or mask


def canonical_id(name: str | int, dataset: str) -> str:
    """The id in the spelling that file names use.

    Args:
        name: Any known spelling: a number, a bare id, a file name, a path (its folders are dropped: only files inside
            the data set's own folders are opened).
        dataset: ``voc12``, ``coco14`` or ``folder``.

    Raises:
        ValueError: the name is no id of that data set, or has ``..`` or characters that no file name may have.
    """
    text = str(name).strip()
    stem = text if _BARE.fullmatch(text) else _stem(text)  # a path takes longer to read, and a list has 80,000 entries
    if not stem or stem.startswith(".") or not stem.isprintable():
        raise ValueError(f"{text!r} names no image")
    if dataset == "coco14":
        digits = re.fullmatch(r"(?:COCO_(?:train|val|test)\d{4}_)?(\d{1,12})", stem, re.ASCII)
        if not digits:
            raise ValueError(f"{text!r} is no COCO image number")
        return f"{int(digits[1]):012d}"
    if dataset == "voc12" and re.fullmatch(
        r"\d{10}", stem, re.ASCII
    ):  # the integer keys of some label files: 2007000032
        return f"{stem[:4]}_{stem[4:]}"
    return stem


_BARE = re.compile(r"\w+")


def _stem(text: str) -> str:
    """The name of a file without folders and suffix."""
    path = PurePosixPath(text.replace("\\", "/"))
    if ".." in path.parts:
        raise ValueError(f"{text!r} leads out of the data set's folder ('..')")
    return path.stem if path.suffix.lower() in (*IMAGE_SUFFIXES, *OTHER_SUFFIXES) else path.name


def find_list(name: str, dataset: str, root: str | Path, classes: str = "") -> Path:
    """The file of a list by its name.

    A path to a file is taken as it is. Of another path, such as the papers' ``voc12/train_aug.txt``, the name alone
    counts. It is looked for in the data set's own ``ImageSets/Segmentation``, in its root, then among the shipped lists
    of that data set.

    Args:
        classes: ``data.classes``: the shipped lists are of the official sets, and no lists of one with its own classes.

    Raises:
        UserError: none of these exists; the message names the places that were searched.
    """
    stem = Path(name).name.removesuffix(".txt")
    folders = [Path(root) / "ImageSets" / "Segmentation", Path(root)]
    shipped = LIST_DIR / dataset
    candidates = [Path(name), *(folder / f"{stem}.txt" for folder in ([*folders] if classes else [*folders, shipped]))]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    own = {path.stem for folder in folders for path in folder.glob("*.txt") if path.stem not in NO_LISTS}
    others = set() if classes else {path.stem for path in shipped.glob("*.txt")}
    hint = did_you_mean(stem, [*own, *others, "all"])
    advice = f" Shipped lists: {', '.join(sorted(others))}." if others else ""
    if classes and (shipped / f"{stem}.txt").is_file():
        advice = f" The shipped list is of the official set; this one has classes of its own ({classes})."
    raise UserError(f"no image list {name!r}: looked for {', '.join(map(str, candidates))}.{hint}{advice}")


def read_list(path: str | Path, dataset: str) -> list[str]:
    """The ids of a list file, in its order, duplicates kept.

    Raises:
        UserError: the file cannot be read, is empty, or has lines that are no ids; all such lines are named.
    """
    ids = []
    wrong = []
    for number, entry in _entries(path):
        try:
            ids.append(canonical_id(_first_column(entry), dataset))
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        raise UserError(f"the image list {path} has entries that cannot be used: {preview(wrong)}")
    if not ids:
        raise UserError(f"the image list {path} is empty")
    return ids


_COMMENT = re.compile(r"^\s*#|\s#(?=\s)")
_FLAG = re.compile(r"(\S+)(\s+(-1|0|1))*\s+-1(\s+(-1|0|1))*")
_QUOTED = re.compile(r"""(["'])(.*)\1""")


def entry_folders(path: str | Path) -> list[str]:
    """The folders that entries of a list file name, each once; they are no part of the ids."""
    names = []
    for _, entry in _entries(path):
        with contextlib.suppress(ValueError):
            names.append(_first_column(entry).replace("\\", "/"))
    return list(dict.fromkeys(str(PurePosixPath(name).parent) for name in names if "/" in name))


def _entries(path: str | Path) -> Iterator[tuple[int, str]]:
    """Numbers and texts of the lines that count."""
    for number, line in enumerate(read_lines(path, "the image list"), start=1):
        entry = _COMMENT.split(line, maxsplit=1)[0].strip()
        if entry:
            yield number, entry


def _first_column(entry: str) -> str:
    """The image of an entry: the first of several columns, or all of it where a file name holds spaces.

    Raises:
        ValueError: the other columns are flags of classes.
    """
    quoted = _QUOTED.fullmatch(entry)
    if quoted:
        return quoted[2]
    if _FLAG.fullmatch(entry):
        raise ValueError(
            f"{entry!r} has a flag of a class, as ImageSets/Main has: keep the ids alone, of the images that you mean"
        )
    for separator in (None, ","):
        first = (entry.split(separator, maxsplit=1) or [""])[0].strip()
        if first != entry and PurePosixPath(first.replace("\\", "/")).suffix.lower() in IMAGE_SUFFIXES:
            return first
    return entry
