"""Images named by files and folders: ids, files, and what of them cannot be read."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from common.data.images import CHECK, LEAST_SIDE, ImageFile, ImageRules
from common.data.lists import IMAGE_SUFFIXES
from common.data.sizes import THREADS, size_problem
from common.data.stamp import STAMP_FILE
from common.data.whole import Failures
from common.run.errors import UserError, preview
from common.run.progress import progress

BETWEEN = "__"  # stands for the / of sub-folders in ids
RECORDS = "records"  # folder of the records of predictions


@dataclass
class Photos:
    """Images without a data set; a `common.data.whole.ImageFiles`.

    Attributes:
        ids: names without folder and suffix; of an image in a sub-folder, with its path: ``sub__photo``.
        images: paths of the files.
        classes: C foreground class names.
        labels: multi-hot float32 (N, C), where labels are given.
        rules: how they are read.
    """

    ids: list[str]
    images: list[Path]
    classes: list[str]
    rules: ImageRules
    labels: np.ndarray | None = None
    list_name: str = "photos"

    def __len__(self) -> int:
        return len(self.ids)

    def unique(self) -> list[int]:
        """Indices of all images."""
        return list(range(len(self)))

    def file(self, index: int) -> ImageFile:
        """The image's file, and how it is read."""
        return ImageFile(self.images[index], self.rules)

    def load_image(self, index: int) -> Image.Image:
        """The image as RGB, decoded.

        Raises:
            UserError: the file is damaged; it is named.
        """
        try:
            return self.file(index).read()
        except UserError as error:
            raise UserError(without_check(str(error))) from error

    def without(self, left_out: Failures) -> "Photos":
        """The other images."""
        kept = [index for index in self.unique() if index not in left_out]
        labels = None if self.labels is None else self.labels[kept]
        ids = [self.ids[index] for index in kept]
        images = [self.images[index] for index in kept]
        return Photos(ids, images, self.classes, self.rules, labels, self.list_name)

    def unreadable(self, is_shown: bool = False, least: int = LEAST_SIDE) -> Failures:
        """Messages about images whose header cannot be read, or that are too small for a network.

        Args:
            least: pixels that each side needs.
            is_shown: whether this process shows the progress.
        """
        with ThreadPoolExecutor(THREADS) as pool:
            messages = pool.map(lambda index: size_problem(self.file(index), least), self.unique())
            counted = progress(messages, "image headers", is_shown, len(self))
            return {index: without_check(message) for index, message in enumerate(counted) if message}


def find_photos(places: Sequence[str | Path]) -> tuple[dict[str, Path], list[str]]:
    """Image files by id, of files and of folders with all that is in them, and notes about what is left out.

    A named file is taken whatever its suffix; in folders the suffixes of images count, and folders of predictions are
    left out. Two files of one folder that
    differ in their suffix alone have it in their ids.

    Raises:
        UserError: a place does not exist, no image is found, a name is no text, or two folders have images of the same
            id.
    """
    found: list[tuple[str, Path]] = []
    notes = []
    for place in map(Path, places):
        if place.is_dir():
            paths = [path for path in sorted(place.rglob("*")) if not _is_hidden(path, place)]
            results = [path.parent for path in paths if path.name == RECORDS and is_results(path.parent)]
            notes += [f"{folder} holds predictions and is left out" for folder in results]
            linked = [_shown(path) for path in paths if path.is_symlink() and path.is_dir()]
            if linked:
                notes.append(f"linked folders are left out, name them: {preview(linked, 3)}")
            inside = [path for path in paths if path.is_file() and not set(results) & set(path.parents)]
            images = [path for path in inside if path.suffix.lower() in IMAGE_SUFFIXES]
            others = [_shown(path) for path in inside if path.suffix.lower() not in IMAGE_SUFFIXES]
            found += [(BETWEEN.join(path.relative_to(place).parts), path) for path in images]
            notes += [f"{place} has no image ({', '.join(IMAGE_SUFFIXES)})"] if not images else []
            if others:
                notes.append(f"{len(others)} files of {place} are no images by their suffix: {preview(others, 3)}")
        elif place.exists():
            found.append((place.name, place))
        else:
            raise UserError(f"no image or folder {place} (from {Path.cwd()}). Correct the path")
    if not found:
        raise UserError(f"nothing to predict: {'; '.join(notes)}. Name images, or folders of images")
    odd = [_shown(path) for _, path in found if _shown(path) != str(path)]
    if odd:
        raise UserError(f"names of {len(odd)} images are no text in UTF-8: {preview(odd, 3)}. Rename them")
    return _with_ids(list(dict.fromkeys(found))), notes


def name_in_folder(image_id: str, path: Path) -> str:
    """An image's file name with the sub-folders that its id tells, such as ``sub/photo.jpg``; for annotation tools."""
    ends = (path.parts[-count:] for count in range(1, len(path.parts) + 1))
    names = (
        "/".join(end) for end in ends if image_id in (BETWEEN.join(end), BETWEEN.join(end).removesuffix(path.suffix))
    )
    return next(names, path.name)


def without_check(message: str) -> str:
    """A message about an image without its last clause, which concerns data sets."""
    return message.replace(f"; {CHECK}", ".").replace(f" {CHECK}", "")


def is_results(folder: Path) -> bool:
    """Whether a folder holds predictions, whose masks and overlays are no photos."""
    return (folder / RECORDS).is_dir() and (folder / "masks" / STAMP_FILE).is_file()


def _shown(path: Path) -> str:
    """A path as text; bytes of its name that are none are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _with_ids(named: list[tuple[str, Path]]) -> dict[str, Path]:
    """Paths by id: the name without its suffix, unless others have the same.

    Raises:
        UserError: two paths have the same name.
    """
    stems = [name.removesuffix(path.suffix) for name, path in named]
    twins = {stem for stem in stems if stems.count(stem) > 1} if len(set(stems)) < len(stems) else set()
    by_id: dict[str, Path] = {}
    for stem, (name, path) in zip(stems, named, strict=True):
        image_id = name if stem in twins else stem
        other = by_id.setdefault(image_id, path)
        if other != path:
            raise UserError(f"{other} and {path} have the same name: give them in two calls, each with its own --out")
    return by_id
