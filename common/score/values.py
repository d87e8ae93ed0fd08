"""Values of seeds that make a score doubtful: outside [0, 1], empty, constant, or the same for every image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from common.run.errors import UserError

SAMPLES = 64  # values by which seeds are compared


@dataclass
class SeedValues:
    """Counts over seeds.

    Attributes:
        images: seeds counted.
        empty: seeds without any class, of images whose mask has one.
        outside: seeds with a value outside [0, 1].
        constant: seeds each of whose maps has a single value.
        low: smallest value of all.
        high: largest value of all.
        contents: digests of up to two different seeds.
    """

    images: int = 0
    empty: int = 0
    outside: int = 0
    constant: int = 0
    low: float = np.inf
    high: float = -np.inf
    contents: set[int] = field(default_factory=set)

    def add(self, seed: Mapping[int, np.ndarray], ends: Sequence[tuple[float, float]], has_classes: bool) -> None:
        """Counts a seed.

        Args:
            ends: of `finite_ends`.
            has_classes: whether the image's mask has any class.
        """
        self.images += 1
        if not ends:
            self.empty += has_classes
            return
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
        self.outside += low < 0 or high > 1
        self.constant += all(low == high for low, high in ends)
        self.low, self.high = min(self.low, low), max(self.high, high)
        if len(self.contents) < 2:
            self.contents.add(hash(tuple(_sampled(cam) for cam in seed.values())))

    def __add__(self, other: "SeedValues") -> "SeedValues":
        sums = {name: getattr(self, name) + getattr(other, name) for name in ("images", "empty", "outside", "constant")}
        low, high = min(self.low, other.low), max(self.high, other.high)
        return SeedValues(**sums, low=low, high=high, contents=self.contents | other.contents)

    def warnings(self) -> list[str]:
        """A sentence for each reason to doubt the scores."""
        found = []
        if self.outside:
            found.append(
                f"{self.outside} of {self.images} seeds have values outside [0, 1], {self.low:.3g} to {self.high:.3g}: "
                "they are compared with the thresholds as they are. Normalise the CAMs of every image"
            )
        if self.empty:
            found.append(f"{self.empty} of {self.images} seeds are empty, although the mask of the image has a class")
        filled = self.images - self.empty
        if self.constant and self.constant == filled:
            found.append("each map of the seeds has a single value: no threshold separates pixels")
        elif len(self.contents) == 1 and filled > 1 and not self.constant:
            found.append(f"all {filled} seeds hold the same values. Does the network see the images?")
        return found


def finite_ends(seed: Mapping[int, np.ndarray]) -> list[tuple[float, float]]:
    """Smallest and largest value of each map.

    Raises:
        UserError: a value is infinite or NaN.
    """
    ends = [(float(np.min(cam)), float(np.max(cam))) for cam in seed.values() if cam.size]
    if not np.isfinite(ends).all():
        raise UserError(f"the maps hold {'NaN' if np.isnan(ends).any() else 'infinite values'}")
    return ends


def _sampled(cam: np.ndarray) -> bytes:
    """Some values of a map, evenly spread."""
    values = np.asarray(cam, dtype=np.float32).ravel()
    return values[:: -(-len(values) // SAMPLES)].tobytes()
