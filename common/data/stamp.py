"""The stamp of a folder with one file for each image: the kind of the files, and everything that they were made from.

It is the file ``stamp.json`` in the folder itself, so that it moves and is copied with the files:

    {"kind": "seeds", "first_class": 0, "method": "cti", "lists": {"train_aug": 10582}, "settings": {...},
     "images": {"2007_000032": "5f0c...", ...}}

``first_class`` is the key or label of the first foreground class, ``lists`` the number of images of every list that was
written, ``settings`` all that a file's content depends on besides its image, ``images`` a digest of every image's own
inputs: name, size and time of change of its file, its labels, and the file of its seed. Folders of
`common.data.outputs` write the stamp by themselves; any other writer, and every reader, needs one call:

    stamp = stamp_of(SEGMENTS, "slic", settings, images)       # for `StampedFolder`, or stamp.write(folder)
    stamp = read_stamp(folder)                                 # None: a folder from elsewhere
    stamp = require_kind(folder, SEEDS, advice, images.ids, images.sample_classes)

`require_kind` refuses a folder of another kind. Where there is no stamp, it holds the keys of some files against the
image labels or the true masks.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from common.data.dataset import ListedImages
from common.data.seeds import find_seed, read_seed, seed_path
from common.run.errors import UserError
from common.run.files import write_json
from common.run.fingerprint import differences, digest, plain, stat_parts

STAMP_FILE = "stamp.json"
PLACES = ("checkpoint", "seeds")  # keys of settings that name files whose content has a key of its own
SAMPLE = 20  # files whose keys are read where there is no stamp

# Gives the class indices of some of the images, as their labels or true masks have them.
Sample = Callable[[Sequence[str]], Mapping[str, Iterable[int]]]


@dataclass(frozen=True)
class Kind:
    """A kind of files; as text, with the meaning of their keys.

    Attributes:
        name: plural noun.
        meaning: meaning of keys or labels.
        first_class: key or label of the first foreground class; None: the files name no classes.
        task: name of the kind as ``--task`` of evaluation.py; empty: it is not scored.
    """

    name: str
    meaning: str
    first_class: int | None
    task: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.meaning})"


SEEDS = Kind("seeds", "key 0 is the first class", 0, "cam")
STRIDED_SEEDS = Kind("strided seeds", "key 0 is the first class, maps smaller than the images", 0)
MARGINALS = Kind("CRF marginals", "key 0 is background, key 1 the first class", 1, "crf")
MASKS = Kind("masks", "label 0 is background, label 1 the first class", 1, "png")
LABEL_MAPS = Kind("label maps", "label 0 is background, label 1 the first class, 255 not labelled", 1, "png")
SEGMENTS = Kind("segments", "numbers of segments, without classes", None)
AGREEMENT = Kind("agreement", "share of fused runs that agree, by pixel", None)
SHIFTED = Kind("seeds of another numbering", "key 1 is the first class, and no key is background", 1)
KINDS = {kind.name: kind for kind in (SEEDS, STRIDED_SEEDS, MARGINALS, MASKS, LABEL_MAPS, SEGMENTS, AGREEMENT)}


@dataclass
class Stamp:
    """The content of a stamp.

    Attributes:
        kind: of the files.
        method: the method or stage whose script wrote them.
        settings: all that a file depends on, as plain containers.
        lists: number of images of every list that was written, by the list's name.
        images: digest of every image's own inputs, by id.
    """

    kind: Kind
    method: str
    settings: dict[str, Any]
    lists: dict[str, int] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = plain(self.settings)

    @property
    def seeds(self) -> str:
        """Folder of the seeds that the files were made of; empty if they were made of none."""
        folder = self.settings.get("seeds", "")
        return folder if isinstance(folder, str) else ""

    def changes(self, before: "Stamp") -> dict[str, tuple[Any, Any]]:
        """The settings that differ, by key: files of both may lie in one folder if none does, whatever their lists.

        The places of weights and seeds do not count, as their content does.
        """
        found = differences(before.settings, self.settings)
        return {key: pair for key, pair in found.items() if key.rpartition(".")[2] not in PLACES}

    def outdated(self, before: "Stamp") -> list[str]:
        """Images whose own inputs have changed since their files were made."""
        return [key for key, value in self.images.items() if before.images.get(key, value) != value]

    def joined(self, before: "Stamp") -> "Stamp":
        """The stamp of a folder that was written for other lists before."""
        return replace(self, lists={**before.lists, **self.lists}, images={**before.images, **self.images})

    def as_dict(self) -> dict[str, Any]:
        """The content of the file."""
        return {
            "kind": self.kind.name, "first_class": self.kind.first_class, "method": self.method, "lists": self.lists,
            "settings": self.settings, "images": self.images,
        }  # fmt: skip

    def write(self, folder: Path) -> None:
        """Writes it into a folder, atomically, unless it is there already."""
        with contextlib.suppress(UserError):  # a damaged one is replaced
            if read_stamp(folder) == self:
                return
        write_json(folder / STAMP_FILE, self.as_dict())


class StampedImages(ListedImages, Protocol):
    """Images that files are made for."""

    def unique(self) -> list[int]:
        """Indices of the images, each once."""


def stamp_of(
    kind: Kind, method: str, settings: dict[str, Any], images: StampedImages, seeds: Path | None = None,
    inputs: Callable[[str], Iterable[Path]] = lambda image_id: (),
) -> Stamp:  # fmt: skip
    """The stamp of files that are made for the images of a list.

    Args:
        seeds: folder of the seeds that they are made of.
        inputs: further files that an image's file is made of, by id.
    """
    digests = {}
    for index in images.unique():
        parts: list[object] = list(stat_parts(images.images[index]))
        if images.labels is not None:
            parts.append(np.flatnonzero(images.labels[index]).tolist())
        if seeds is not None:
            parts += stat_parts(find_seed(seeds, images.ids[index]))
        for path in inputs(images.ids[index]):
            parts += stat_parts(path)
        digests[images.ids[index]] = digest(*parts)
    settings = {**settings, "classes": images.classes}
    return Stamp(kind, method, settings, {images.list_name: len(digests)}, digests)


def read_stamp(folder: str | Path) -> Stamp | None:
    """The stamp of a folder; None if it has none.

    Raises:
        UserError: the stamp is damaged, or of a kind that this version does not know.
    """
    path = Path(folder) / STAMP_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"the stamp {path} cannot be read ({error}). Make the files of {folder} again") from error
    try:
        kind = KINDS[content["kind"]]
        lists = {str(name): int(count) for name, count in content["lists"].items()}
        images = {str(image_id): str(value) for image_id, value in content.get("images", {}).items()}
        return Stamp(kind, str(content["method"]), dict(content["settings"]), lists, images)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path} is no stamp of this project ({type(error).__name__}: {error}). Make the files of {folder} again, "
            f"or delete {path} if it came from elsewhere"
        ) from error


def seed_settings(folder: Path) -> dict[str, Any]:
    """A folder of seeds and its settings: part of the settings of all files that are made of these seeds."""
    stamp = read_stamp(folder)
    return {"seeds": str(folder), "made_by": {**stamp.settings, "method": stamp.method} if stamp else {}}


def require_kind(
    folder: str | Path, accepted: Kind | Sequence[Kind], remedy: Callable[[Kind, Stamp | None], str],
    ids: Sequence[str] = (), sample: Sample | None = None,
) -> Stamp | None:  # fmt: skip
    """Makes sure that a folder holds files of a kind; returns its stamp.

    Args:
        remedy: gives the advice of the message, from the kind that was found and its stamp.
        ids: images that files are looked up for, where there is no stamp.
        sample: see `Sample`; None, or an empty result: files without a stamp are taken for what is accepted.

    Raises:
        UserError: it holds files of another kind.
    """
    kinds = (accepted,) if isinstance(accepted, Kind) else tuple(accepted)
    stamp = read_stamp(folder)
    found = stamp.kind if stamp else _kind_by_keys(Path(folder), ids, sample)
    if found is None or found in kinds or (stamp is None and found is SEEDS and STRIDED_SEEDS in kinds):
        return stamp
    why = "" if stamp else ", as their keys and the image labels show"
    wanted = " or ".join(map(str, kinds))
    raise UserError(f"{folder} holds {found}{why}; {wanted} are needed here. {remedy(found, stamp)}")


def _kind_by_keys(folder: Path, ids: Sequence[str], sample: Sample | None) -> Kind | None:
    """The kind of files without a stamp, from the keys of some of them; None if they do not tell."""
    there = [image_id for image_id in dict.fromkeys(ids) if seed_path(folder, image_id)]
    if not there or sample is None:
        return None
    chosen = there[:: -(-len(there) // SAMPLE)]
    votes: Counter[Kind] = Counter()
    for image_id, classes in sample(chosen).items():
        path = seed_path(folder, image_id)
        try:
            kind = kind_of_keys(read_seed(path), classes) if path else None
        except UserError:  # the reader tells, with all others
            continue
        if kind:
            votes[kind] += 1
    if not votes:
        return None
    (first, count), *others = votes.most_common()
    return first if not others or count > others[0][1] else None


def kind_of_keys(keys: Iterable[int], classes: Iterable[int]) -> Kind | None:
    """The kind of an image's file whose keys are known, as its labels tell it; None if they fit several kinds or none.

    Seeds have the image's classes as keys, marginals background and each class plus 1. Fewer keys are admitted where
    they fit one kind alone.
    """
    found, of_seeds = set(keys), set(classes)
    shifted = {index + 1 for index in of_seeds}
    exact = {SEEDS: of_seeds, MARGINALS: shifted | {0}, SHIFTED: shifted}
    if not found or not of_seeds:
        return MARGINALS if found == {0} and not of_seeds else None
    for kind, expected in exact.items():
        if found == expected:
            return kind
    is_part_of = {SEEDS: found < of_seeds, MARGINALS: 0 in found and len(found) > 1 and found < exact[MARGINALS]}
    parts = [kind for kind, is_part in is_part_of.items() if is_part]
    return parts[0] if len(parts) == 1 else None
