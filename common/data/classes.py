"""Class names in label order (index 0 is the first foreground class): of the public data sets, and of a user's file."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.run.errors import UserError, preview
from common.run.text import read_lines

VOC12 = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

# The 80 "thing" categories by ascending category id, with COCO's own spellings.
COCO14 = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

BACKGROUND = "background"
IGNORE_LABEL = 255
MOST_CLASSES = IGNORE_LABEL - 1  # a mask's label is class index + 1


def read_classes(path: str | Path) -> list[str]:
    """The names in a class file: one a line; empty lines and lines that begin with # do not count.

    Raises:
        UserError: the file cannot be read, or as `check_classes`.
    """
    lines = (line.strip() for line in read_lines(path, "data.classes:"))
    names = [line for line in lines if line and not line.startswith("#")]
    check_classes(names, f"data.classes: {path}")
    return names


def check_classes(names: Sequence[str], source: str) -> None:
    """Checks the names of foreground classes.

    Args:
        source: where they are from, for messages.

    Raises:
        UserError: there is none or more than a mask has labels for, one is there twice, is the background, or has
            characters that cannot be shown.
    """
    if not names:
        raise UserError(f"{source} names no class")
    hidden = [repr(name) for name in names if not name.strip() or not name.isprintable()]
    if hidden:
        raise UserError(f"{source} has names with characters that cannot be shown: {preview(hidden)}. Write them anew")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f"{source} has classes more than once: {preview(repeated)}. Each class needs a name of its own")
    ground = [name for name in names if name.strip("_ ").casefold() == BACKGROUND]
    if ground:
        raise UserError(
            f"{source} has the class {ground[0]!r}: the background is no class, its label 0 comes by itself. Remove it"
        )
    if len(names) > MOST_CLASSES:
        raise UserError(
            f"{source} has {len(names)} classes; masks have labels for {MOST_CLASSES} ({IGNORE_LABEL} is ignored)"
        )


def alike(name: str) -> str:
    """The name without case, spaces and punctuation between words: two classes that share it are probably one."""
    return "".join(name.casefold().split()).replace("_", "").replace("-", "")


def looks_like(name: str, classes: Iterable[str]) -> str:
    """A question that names the class whose spelling differs from a name in case, spaces or punctuation only."""
    found = [known for known in classes if known != name and alike(known) == alike(name)]
    return f" Did you mean {found[0]!r}?" if found else ""
