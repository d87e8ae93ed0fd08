"""The list that predictions are scored on: given, or recorded with them; and a better one where files are missing."""

from collections.abc import Iterable
from pathlib import Path

from common.data.layout import DataConfig
from common.data.lists import LIST_DIR, read_list
from common.data.stamp import Stamp
from common.run.errors import UserError, preview
from common.score.files import FilePredictions, MaskFiles

DEFAULT_LISTS = {"voc12": "train", "coco14": "train14_small", "folder": "all"}


def list_of(data: DataConfig, stamp: Stamp | None) -> str:
    """The list that is scored where none is named.

    Args:
        stamp: of the predictions' folder, if it has one.

    Returns:
        The data set's usual list if predictions were made for all of its images, else the list recorded with them.
    """
    usual = DEFAULT_LISTS[data.dataset]
    if stamp is None or not stamp.lists:
        return usual
    try:
        is_covered = set(MaskFiles(data, usual).ids) <= stamp.images.keys()
    except UserError:  # there is no such list, or no mask
        is_covered = False
    return usual if is_covered or usual in stamp.lists else list(stamp.lists)[-1]


def require_there(predictions: FilePredictions, masks: MaskFiles, data: DataConfig) -> None:
    """Makes sure that predictions are of the list that is scored, where another list fits them.

    Raises:
        UserError: most images of the list have no file, but all images of another one have.
    """
    there = {path.stem for path in predictions.folder.iterdir() if path.suffix[1:] in predictions.suffixes()}
    found = sum(image_id in there for image_id in masks.ids)
    if 2 * found >= len(masks.ids):
        return
    others = [(name, len(ids)) for name, ids in _lists(data) if name != masks.list_name and ids <= there]
    if others:
        name, count = max(others, key=lambda other: other[1])
        raise UserError(
            f"{predictions.folder} has {found} of {len(masks.ids)} of {masks.list_name!r}, but {count} of {name!r}: "
            f"--list {name}"
        )
    if not found and there:
        raise UserError(
            f"{predictions.folder} has {found} of {len(masks.ids)} of {masks.list_name!r}, but {len(there)} other "
            f"files, such as {preview(sorted(there), 3)}: name their list with --list"
        )


def _lists(data: DataConfig) -> Iterable[tuple[str, set[str]]]:
    """Names and ids of the data set's own lists and of the shipped ones."""
    root = Path(data.root)
    files = [*root.glob("ImageSets/Segmentation/*.txt"), *root.glob("*.txt"), *(LIST_DIR / data.dataset).glob("*.txt")]
    for name in dict.fromkeys(file.stem for file in files):
        try:
            yield name, set(read_list(data.list_file(name), data.dataset))
        except UserError:  # a text file that is no list
            continue
