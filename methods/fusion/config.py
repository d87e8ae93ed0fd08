"""Configuration of the fusion of seeds. Imports no PyTorch."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from common.data.layout import DataConfig
from common.data.seeds import FORMATS
from common.masks.options import CRFMaskLists
from common.run.config import Rule, option, section
from common.run.errors import UserError
from common.run.folder import EXPERIMENT_DIR, SEEDS_DIR
from common.run.options import RuntimeConfig
from common.score.options import EvalConfig

RULES = ("mean", "geometric", "min", "max", "vote")
WEIGHTED = ("mean", "geometric", "vote")


class Run(NamedTuple):
    """A run that is fused: its folder of seeds, its weight (all sum to 1), and its background threshold."""

    folder: Path
    weight: float
    threshold: float


@dataclass
class FuseSection:
    """The fusion."""

    runs: list[str] = option([], "Two or more runs: names, whose seeds are experiment/NAME/dict, or folders of seeds.")
    how: str = option(
        "mean", "Value of a class at a pixel from those of the runs: mean, geometric mean, min, max, or the mean over "
        "the runs with the pixel's most frequent label (vote).", flag="--how", choices=RULES,
    )  # fmt: skip
    weights: list[float] = option(
        [], "Weights of the runs, in their order; empty: equal ones. Not for min and max.", flag="--weights",
        rule=Rule("numbers above 0", lambda values: all(value > 0 and math.isfinite(value) for value in values)),
    )  # fmt: skip
    thresholds: list[float] = option(
        [0.4], "Background thresholds of the runs, which vote and agreement take labels at: one each, or one for all.",
        flag="--thresholds",
        rule=Rule("one or more numbers from 0", lambda values: bool(values) and min(values) >= 0),
    )  # fmt: skip
    format: str = option("npy", "Seed files: npy or the compact npz.", choices=FORMATS)

    def check(self) -> None:
        """Checks the numbers of values.

        Raises:
            UserError: there are not as many weights or thresholds as runs, or weights where they have no meaning.
        """
        if self.weights and self.how not in WEIGHTED:
            raise UserError(
                f"fuse.weights have no meaning for fuse.how={self.how}; they count for {', '.join(WEIGHTED)}"
            )
        if self.weights and len(self.weights) != len(self.runs):
            raise UserError(f"fuse.weights: {len(self.weights)} weights of {len(self.runs)} runs; give one each")
        if len(self.thresholds) not in (1, len(self.runs)):
            raise UserError(
                f"fuse.thresholds: {len(self.thresholds)} thresholds of {len(self.runs)} runs; give one each, or one "
                "for all"
            )

    def check_folder(self) -> None:
        """Checks the runs.

        Raises:
            UserError: as `sources`.
        """
        self.sources()

    def sources(self) -> list[Run]:
        """The runs, ordered by their folders, so that the order in which they are given does not matter.

        Raises:
            UserError: there are fewer than two, or one has no folder of seeds.
        """
        if len(self.runs) < 2:
            raise UserError(
                "which runs? Name two or more, by their names or folders of seeds: fuse_seeds.py --name fused A B"
            )
        weights = self.weights or [1.0] * len(self.runs)
        thresholds = self.thresholds * (len(self.runs) if len(self.thresholds) == 1 else 1)
        folders = map(seed_folder, self.runs)
        return sorted(
            Run(folder, weight / sum(weights), threshold)
            for folder, weight, threshold in zip(folders, weights, thresholds, strict=True)
        )


def seed_folder(run: str) -> Path:
    """The folder of seeds that a word means: that of a run, else a folder of its own.

    Raises:
        UserError: there is neither.
    """
    candidates = [EXPERIMENT_DIR / run / SEEDS_DIR, Path(run)]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise UserError(
        f"no seeds of {run!r}: neither {candidates[0]} nor {candidates[1]} is a folder (from {Path.cwd()}). An "
        "inference with --dict writes them"
    )


@dataclass
class FusionConfig:
    """All sections of a fusion."""

    method: ClassVar[str] = "fusion"
    data: DataConfig = section(DataConfig)
    fuse: FuseSection = section(FuseSection)
    infer: CRFMaskLists = section(CRFMaskLists)
    eval: EvalConfig = section(EvalConfig)
    runtime: RuntimeConfig = section(RuntimeConfig)
