"""Whether true masks and image labels mean the same classes: a mask of other numbers gives scores of nothing.

Masks are known by the labels that occur in them. Values 0 and 255 alone, colours that a program has renumbered,
official COCO category ids in place of class indices, and another order of the classes all read without an error.
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from common.data.classes import COCO14, COCO_IDS, IGNORE_LABEL

DIFFERING = 0.2  # share of images from which on it is no accident
LEAST_IMAGES = 5  # fewer tell nothing
LEAST_OF_CLASS = 3
SHOWN = 5
CONVERTER = "python scripts/prepare_data.py masks"

ImageLabels = Mapping[str, tuple[int, ...]]  # class indices by image id
NO_LABELS: ImageLabels = MappingProxyType({})


class MaskMeaning:
    """Counts images whose labels and masks name the same classes; summable over threads and processes.

    Attributes:
        images: with labels and a mask.
        differing: of them, whose labels and mask name different classes.
        official: of them, that would agree if their masks had COCO's official category ids.
        labelled: images with a mask whose labels have a class, int64 (C,).
        met: of them, whose masks have it, too.
        seen: labels that occur in any mask.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        """Begins with nothing; ``classes`` are the C foreground names."""
        self.classes = list(classes)
        self.images = 0
        self.differing = 0
        self.official = 0
        self.labelled = np.zeros(len(classes), dtype=np.int64)
        self.met = np.zeros(len(classes), dtype=np.int64)
        self.seen: set[int] = set()

    def add(self, values: Collection[int], classes: Collection[int] | None) -> None:
        """Counts one image.

        Args:
            values: labels that occur in its mask: 0 background, class index + 1, 255 ignore.
            classes: class indices of its image labels; None: it has none.
        """
        self.seen.update(values)
        if classes is None:
            return
        named = set(classes)
        found = {value - 1 for value in values if 0 < value < IGNORE_LABEL}
        self.images += 1
        self.differing += found != named
        if len(self.classes) == len(COCO14):
            self.official += {COCO_IDS.index(value + 1) for value in found if value + 1 in COCO_IDS} == named
        self.labelled[list(named)] += 1
        self.met[list(named & found)] += 1

    def add_truth(self, pixels: np.ndarray, size: int, classes: Collection[int] | None) -> None:
        """Counts one image by its pixels of each true label, int64 (K,), of ``size`` pixels in all; see `add`."""
        ignored = [IGNORE_LABEL] if pixels.sum() < size else []
        self.add([*np.flatnonzero(pixels).tolist(), *ignored], classes)

    def __iadd__(self, other: "MaskMeaning") -> "MaskMeaning":
        self.images += other.images
        self.differing += other.differing
        self.official += other.official
        self.labelled += other.labelled
        self.met += other.met
        self.seen |= other.seen
        return self

    def findings(self) -> list[str]:
        """What the counts tell, a sentence each with the remedy; none if all is well."""
        found = []
        if self.seen and self.seen <= {0, IGNORE_LABEL} and IGNORE_LABEL in self.seen:
            found.append(
                f"the masks have the values 0 and 255 alone, and 255 means ignored: is it the foreground? {CONVERTER} "
                "--map 255=1 makes it the first class"
            )
        share = self.differing / max(self.images, 1)
        if self.images >= LEAST_IMAGES and share > DIFFERING:
            is_official = self.official > 2 * (self.images - self.differing)
            reason = (
                f"They seem to have COCO's official category ids (1 to 90) in place of 1 to 80: {CONVERTER} --map coco "
                "corrects them"
                if is_official
                else "Are the classes of both in the same order, and do both belong to these images?"
            )
            found.append(
                f"labels and masks name different classes for {self.differing} of {self.images} images ({share:.0%}). "
                f"{reason}"
            )
        apart = np.flatnonzero((self.labelled >= LEAST_OF_CLASS) & (self.met == 0)).tolist()
        if apart:
            names = ", ".join(f"{self.classes[i]} ({self.labelled[i]} images)" for i in apart[:SHOWN])
            more = f" and {len(apart) - SHOWN} more" if len(apart) > SHOWN else ""
            found.append(
                f"classes that image labels have and no mask of these images: {names}{more}. Are the classes of both "
                "in the same order?"
            )
        return found


def labels_by_id(ids: Sequence[str], labels: np.ndarray | None) -> ImageLabels:
    """Class indices of image labels (N, C), by image id; empty without labels."""
    if labels is None:
        return NO_LABELS
    return {image_id: tuple(np.flatnonzero(row).tolist()) for image_id, row in zip(ids, labels, strict=True)}
