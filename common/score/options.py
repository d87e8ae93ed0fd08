"""Configuration sections of an evaluation, and their values in the YAML of any run. Imports no PyTorch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.data.layout import DataConfig
from common.run.config import at_least, leaves, load_config, option, or_empty, pair, read_yaml, section, some
from common.run.errors import UserError

MOST_THRESHOLDS = 10_001


@dataclass
class EvalConfig:
    """The background thresholds at which seeds are scored."""

    thresholds: list[float] = option(
        [0.0, 0.99, 0.01], "First, last and step of the background thresholds.", rule=some(at_least(0))
    )
    fixed_threshold: float = option(
        0.4, "A threshold chosen beforehand, whose score is reported beside the best.", rule=at_least(0)
    )
    reference_range: list[float] = option(
        [], "First and last threshold that the method's authors search; empty: none.", rule=or_empty(pair(at_least(0)))
    )
    early_stop: bool = option(
        False, "Also report the end of a search of that range that stops at the first threshold without improvement."
    )

    def check(self) -> None:
        """Checks the thresholds.

        Raises:
            UserError: as `grid`.
        """
        self.grid()

    def grid(self) -> list[float]:
        """All thresholds in ascending order, the fixed one among them.

        Raises:
            UserError: not three numbers, or none from the first to the last.
        """
        if len(self.thresholds) != 3 or not self.thresholds[2] > 0 or not 0 <= self.thresholds[0] <= self.thresholds[1]:
            raise UserError(f"eval.thresholds={self.thresholds}: give first, last and step, such as [0.0, 0.99, 0.01]")
        if self.fixed_threshold < 0:
            raise UserError(f"eval.fixed_threshold={self.fixed_threshold} must not be negative")
        if len(self.reference_range) not in (0, 2):
            raise UserError(f"eval.reference_range={self.reference_range}: first and last threshold are needed, or []")
        first, last, step = self.thresholds
        count = int(np.floor((last - first) / step + 1e-6)) + 1
        if count > MOST_THRESHOLDS:
            raise UserError(f"eval.thresholds={self.thresholds} are {count} thresholds; take a larger step")
        values = np.round(first + step * np.arange(count), 10)  # 10 decimals: the same numbers as i / 100
        return sorted({*values.tolist(), self.fixed_threshold})


@dataclass
class EvaluationConfig:
    """The data set and the thresholds of an evaluation: sections that all methods' configurations share."""

    data: DataConfig = section(DataConfig)
    eval: EvalConfig = section(EvalConfig)


def shared_sections(path: Path) -> list[str]:
    """The sections of `EvaluationConfig` in the YAML of a run or method, as key=value texts; others are ignored.

    Raises:
        UserError: the file is unreadable, has no section ``data``, or wrong values in the two sections.
    """
    kinds = {leaf.key: leaf.type for leaf in leaves(EvaluationConfig())}
    content = read_yaml(path, [key for key, kind in kinds.items() if kind is str])
    if not isinstance(content.get("data"), dict):
        raise UserError(f"{path} has no section 'data' to name the data set; give --data voc12, coco14 or another YAML")
    known = [key.split(".") for key in kinds]
    sections: dict[str, Any] = {name: content.get(name) or {} for name in ("data", "eval")}
    for name, keys in sections.items():
        if not isinstance(keys, dict):
            raise UserError(f"{name} in {path} is a section: it takes keys, not {type(keys).__name__}")
    found = [f"{name}.{key}={json.dumps(sections[name][key])}" for name, key in known if key in sections[name]]
    try:
        load_config(EvaluationConfig, None, found)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return found
