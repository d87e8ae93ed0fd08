"""A background threshold for each class, tuned on images with true masks.

The rule is `common.data.seed_labels.winners`: the class of the highest value counts where that value is above the
class's own threshold. So the IoU of a class depends on its own threshold alone, and only background's on all; the mIoU
rises by choosing one class's threshold after the other until none changes.
"""

from collections.abc import Sequence

import numpy as np

from common.data.classes import IGNORE_LABEL
from common.data.seed_labels import winners
from common.data.seeds import Seed
from common.score.counts import scores_of

GRID = np.arange(100) / 100


class ClassCounts:
    """Counts of seeds by the winning class and its value, from which every choice of thresholds can be scored."""

    def __init__(self, num_classes: int, grid: np.ndarray = GRID) -> None:
        """Starts from zero.

        Args:
            num_classes: C, without background.
            grid: thresholds to choose from, ascending, float64 (n,).
        """
        self.grid = grid
        shape = num_classes, len(grid) + 1
        # Pixels by winning class and number of thresholds below its value: all, truly of it, truly background.
        self.all, self.hits, self.background = np.zeros((3, *shape), dtype=np.int64)
        self.truth = np.zeros(num_classes + 1, dtype=np.int64)

    def add(self, seed: Seed, mask: np.ndarray) -> None:
        """Counts one image, whose true labels are uint8 (H, W), 255 ignored."""
        is_valid = mask != IGNORE_LABEL
        truth = mask[is_valid]
        self.truth += np.bincount(truth, minlength=len(self.truth))
        if not seed:
            self.background[0, 0] += np.count_nonzero(truth == 0)  # below every threshold of any class
            return
        keys = np.array(list(seed))
        winner = keys[winners(seed, mask.shape, -np.inf)[is_valid].astype(np.int64) - 1]
        best = np.max(list(seed.values()), axis=0)[is_valid]
        columns = len(self.grid) + 1
        code = winner * columns + np.searchsorted(self.grid.astype(np.float32), best)
        for counts, chosen in ((self.all, ...), (self.hits, truth == winner + 1), (self.background, truth == 0)):
            counts += np.bincount(code[chosen], minlength=counts.size).reshape(counts.shape)

    def __add__(self, other: "ClassCounts") -> "ClassCounts":
        total = ClassCounts(len(self.all), self.grid)
        total.all = self.all + other.all
        total.hits = self.hits + other.hits
        total.background = self.background + other.background
        total.truth = self.truth + other.truth
        return total

    def miou(self, places: Sequence[int]) -> float:
        """mIoU (percent) where class k has the threshold ``grid[places[k]]``."""
        k = np.arange(len(places))
        found = self.all, self.hits, self.background
        above = [np.cumsum(counts[:, ::-1], axis=1)[:, ::-1][:, 1:][k, places] for counts in found]
        predicted = np.array([self.truth.sum() - above[0].sum(), *above[0]])
        correct = np.array([self.truth[0] - above[2].sum(), *above[1]])
        return float(scores_of(correct, predicted, self.truth).miou)

    def tuned(self) -> list[float]:
        """A threshold for each class: from the best common one, class after class until the mIoU rises no more."""
        number = len(self.all)
        places = max(([place] * number for place in range(len(self.grid))), key=self.miou)
        before = -1.0
        while (now := self.miou(places)) > before:
            before = now
            for k in range(number):
                tries = [[*places[:k], place, *places[k + 1 :]] for place in range(len(self.grid))]
                best = max(tries, key=self.miou)
                places = best if self.miou(best) > self.miou(places) else places
        return [float(self.grid[place]) for place in places]
