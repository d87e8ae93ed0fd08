"""The points of a threshold curve that are reported. (How they are counted and written: tests/test_evaluation.py.)"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common.score.counts import Scores, SweepCounts
from common.score.options import EvalConfig
from common.score.result import Evaluation


def scored(miou: Sequence[float], **config: Any) -> Evaluation:
    """A result of these mIoU at thresholds 0.00, 0.01, ..."""
    thresholds = np.arange(len(miou)) / 100
    result = Evaluation("cam", ["cat"], SweepCounts(2, thresholds), EvalConfig(fixed_threshold=0.0, **config), 1)
    rows = np.repeat(np.asarray(miou, np.float64)[:, None], 2, axis=1)
    result.__dict__["scores"] = Scores(rows, rows / 100, rows / 100)
    return result


@settings(max_examples=200, deadline=None)
@given(miou=st.lists(st.integers(0, 4), min_size=1, max_size=12), first=st.integers(0, 12), last=st.integers(0, 14))
def test_the_early_stop_is_that_of_the_loop(miou: list[int], first: int, last: int) -> None:
    """It ends at the first threshold of the range that does not improve: a fall, or a plateau."""
    best = None
    for index in range(first, min(last + 1, len(miou))):
        if best is not None and miou[index] <= miou[best]:
            break
        best = index
    found = scored(miou, reference_range=[first / 100, last / 100], early_stop=True).early_stop
    assert (None if found is None else found.index) == best
    if found is not None:
        assert found.miou == miou[best] and found.threshold == best / 100


def test_the_early_stop_may_miss_the_maximum() -> None:
    """Which is reported beside it; without a range, or switched off, there is none."""
    curve = [9, 1, 3, 3, 8, 2]
    result = scored(curve, reference_range=[0.01, 0.05], early_stop=True)
    assert result.early_stop.index == 2 and result.reference_best.index == 4 and result.best.index == 0
    assert list(result.points()) == ["best", "fixed", "reference_range", "early_stop"]
    for config in ({"early_stop": True}, {"reference_range": [0.01, 0.05]}, {}):
        assert scored(curve, **config).early_stop is None and "early_stop" not in scored(curve, **config).points()
