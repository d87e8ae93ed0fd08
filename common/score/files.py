"""Predictions and true masks as files: what `common.score.evaluate` reads, image by image."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.data.layout import DataConfig, mask_paths
from common.data.lists import read_list
from common.data.masks import read_mask
from common.data.seeds import FORMATS, read_seed, seed_path
from common.data.stamp import LABEL_MAPS, MARGINALS, MASKS, SEEDS, Kind, Stamp, read_stamp, require_kind
from common.run.errors import UserError
from common.run.files import load_npy
from common.run.fingerprint import files_digest

TASKS = ("cam", "crf", "png", "dl")
KINDS_OF = {"cam": (SEEDS,), "crf": (MARGINALS,), "dl": (MARGINALS,), "png": (MASKS, LABEL_MAPS)}

# A seed for the task cam; maps (H, W) by label, or a label mask (H, W), for the others.
Prediction = dict[int, np.ndarray] | np.ndarray


class MaskFiles:
    """True masks of a list's images; called with an id, reads one: uint8 (H, W).

    Attributes:
        list_name: the list.
        ids: the list's image ids, each once, in its order.
    """

    def __init__(self, config: DataConfig, list_name: str, gt_dir: str = "") -> None:
        """Reads the list.

        Args:
            list_name: A list's name or file; ``all`` of a folder data set: every image that has a mask.
            gt_dir: Folder of the masks, in place of the data set's own; see `common.data.layout.mask_paths`.

        Raises:
            UserError: the list is missing.
        """
        self.list_name = list_name
        self._paths = mask_paths(config, list_name, gt_dir)
        if config.dataset == "folder" and list_name == "all":
            self.ids = list(self._paths.found())
        else:
            self.ids = list(dict.fromkeys(read_list(config.list_file(list_name), config.dataset)))

    def path(self, image_id: str) -> Path:
        """Path of an image's mask, which need not exist."""
        return self._paths.path(image_id)

    def sample_classes(self, ids: Sequence[str]) -> dict[str, list[int]]:
        """Class indices of some of the images, as their masks have them; images without a mask are left out."""
        found = {}
        for image_id in ids:
            with contextlib.suppress(UserError):
                found[image_id] = [label - 1 for label in np.unique(self(image_id)).tolist() if 0 < label < 255]
        return found

    def __call__(self, image_id: str) -> np.ndarray:
        path = self.path(image_id)
        if not path.is_file():
            raise UserError(
                f"no ground-truth mask {path}. Give its folder (--gt_dir) or get it: {self._paths.provided_by}"
            )
        return read_mask(path)


@dataclass(frozen=True)
class FilePredictions:
    """Predictions in a folder, one file per image; called with id and size, reads one.

    ``cam``: seed files. ``crf`` and ``dl``: ``<id>.npy`` with {label: values (H, W)}, background as 0, or an integer
    array of labels. ``png``: ``<id>.png`` of label indices.
    """

    folder: Path
    task: str

    def require_kind(self, masks: MaskFiles) -> Stamp | None:
        """Makes sure that the folder holds files of the task; returns its stamp.

        Raises:
            UserError: it holds files of another kind; the message has the command that scores them.
        """

        def advice(found: Kind, stamp: Stamp | None) -> str:
            if not found.task:
                return f"{found.name[0].upper()}{found.name[1:]} are not scored"
            return f"Score them with: evaluation.py --task {found.task}"

        return require_kind(self.folder, KINDS_OF[self.task], advice, masks.ids, masks.sample_classes)

    def suffixes(self) -> tuple[str, ...]:
        """Endings of the files, without the dot."""
        return FORMATS if self.task == "cam" else ("png",) if self.task == "png" else ("npy",)

    def stamp(self) -> Stamp | None:
        """The folder's stamp, if it has one."""
        return read_stamp(self.folder)

    def digest(self, ids: Sequence[str]) -> str:
        """A digest of the files of images."""
        return files_digest(path for image_id in ids if (path := self.find(image_id)))

    def find(self, image_id: str) -> Path | None:
        """The file of an image, if there is one."""
        if self.task == "cam":
            return seed_path(self.folder, image_id)
        path = Path(self.folder) / f"{image_id}.{'png' if self.task == 'png' else 'npy'}"
        return path if path.is_file() else None

    def __call__(self, image_id: str, shape: tuple[int, int]) -> Prediction:
        """Raises `UserError` for a missing, damaged or unsafe file."""
        path = self.find(image_id)
        if path is None:
            raise UserError(f"missing: {Path(self.folder) / image_id}.{' or .'.join(self.suffixes())}")
        if self.task == "png":
            return read_mask(path)
        if self.task != "cam":
            content = load_npy(path)
            if isinstance(content, np.ndarray) and content.ndim == 2 and content.dtype.kind in "iub":
                return content
        return read_seed(path)  # refuses anything but a dictionary of maps
