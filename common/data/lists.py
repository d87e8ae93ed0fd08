"""Image ids and the lists that name them.

An id is the file name of an image without folder and extension. For VOC it is ``YYYY_NNNNNN``, for COCO 14 the image
number in 12 digits. A list has one image per line; every spelling found in public lists is read:

    2007_000032                                                       a bare id
    /JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png   the papers' VOC lists (first column counts)
    9   000000000009   COCO_train2014_000000000009.jpg                  COCO
"""

import re
from pathlib import Path, PurePosixPath

from common.run.errors import UserError, preview
from common.run.files import ROOT
from common.run.similar import did_you_mean

LIST_DIR = ROOT / "data" / "lists"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


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
    path = PurePosixPath(text.replace("\\", "/"))
    if ".." in path.parts:
        raise ValueError(f"{text!r} leads out of the data set's folder ('..')")
    stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    if not stem or stem.startswith(".") or not stem.isprintable():
        raise ValueError(f"{text!r} names no image")
    if dataset == "coco14":
        digits = re.fullmatch(r"(?:COCO_(?:train|val|test)\d{4}_)?(\d{1,12})", stem)
        if not digits:
            raise ValueError(f"{text!r} is no COCO image number")
        return f"{int(digits[1]):012d}"
    if dataset == "voc12" and stem.isdigit() and len(stem) == 10:  # the integer keys of some label files: 2007000032
        return f"{stem[:4]}_{stem[4:]}"
    return stem


def find_list(name: str, dataset: str, root: str | Path) -> Path:
    """The file of a list by its name.

    A path to a file is taken as it is. A bare name such as ``train_aug`` is looked for in the data set's own
    ``ImageSets/Segmentation``, then among the shipped lists of that data set.

    Raises:
        UserError: none of these exists; the message names the places that were searched.
    """
    candidates = [
        Path(name),
        Path(root) / "ImageSets" / "Segmentation" / f"{name}.txt",
        Path(root) / f"{name}.txt",
        LIST_DIR / dataset / f"{name}.txt",
    ]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    shipped = sorted(path.stem for path in (LIST_DIR / dataset).glob("*.txt"))
    own = [path.stem for folder in (candidates[1].parent, Path(root)) for path in folder.glob("*.txt")]
    hint = did_you_mean(Path(name).name.removesuffix(".txt"), [*own, *shipped, "all"])
    advice = f" Shipped lists: {', '.join(shipped)}." if shipped else ""
    raise UserError(f"no image list {name!r}: looked for {', '.join(map(str, candidates))}.{hint}{advice}")


def read_list(path: str | Path, dataset: str) -> list[str]:
    """The ids of a list file, in its order, duplicates kept.

    Raises:
        UserError: the file cannot be read, is empty, or has lines that are no ids; all such lines are named.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the image list {path} cannot be read: {error}") from error
    ids = []
    wrong = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        first = _first_column(line)
        try:
            ids.append(canonical_id(first, dataset))
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        raise UserError(f"the image list {path} has entries that cannot be used: {preview(wrong)}")
    if not ids:
        raise UserError(f"the image list {path} is empty")
    return ids


def _first_column(line: str) -> str:
    """The image of a line: the first of several columns, or all of it where a file name holds spaces."""
    columns = line.split()
    is_pair = len(columns) > 1 and PurePosixPath(columns[0]).suffix.lower() in IMAGE_SUFFIXES
    return columns[0] if is_pair or len(columns) == 1 else line.strip()
