"""Equality with the reference implementations, case by case of a golden folder (``--golden DIR``)."""

import sys
from collections.abc import Iterator

import pytest

from tests.forks import return_memory
from tests.golden import (  # noqa: F401 - they register themselves
    runners_crt,
    runners_crt_train,
    runners_crt_wsol,
    runners_cti,
    runners_data,
    runners_deeplab,
    runners_dig,
    runners_eval,
    runners_irn,
    runners_pcss,
    runners_psa,
    runners_toco,
    runners_toco_infer,
    runners_toco_labels,
)
from tests.golden.harness import RUNNERS, Case, cases, compare


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each file that the folder's manifest names."""
    if "golden_case" in metafunc.fixturenames:
        found = list(cases(metafunc.config.getoption("--golden")))
        metafunc.parametrize("golden_case", found, ids=[case.file.removesuffix(".npz") for case in found])


@pytest.fixture(autouse=True, scope="module")
def _returned_memory() -> Iterator[None]:
    """Gives the networks' gigabytes back."""
    yield
    for name, module in sys.modules.items():
        if name.startswith("tests.golden."):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()
    return_memory()


def test_golden(golden_case: Case) -> None:
    """Everything computed from the case's recipe equals the reference within the case's tolerance."""
    place = golden_case.entry["method"], golden_case.entry["kind"]
    assert place in RUNNERS, f"{golden_case.file}: no runner for method {place[0]!r}, kind {place[1]!r}"
    compare(golden_case, RUNNERS[place](golden_case))
