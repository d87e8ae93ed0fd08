"""Options and fixtures of the whole suite."""

import os
from pathlib import Path

import pytest

# Two test machines' cores are shared by the scripts that tests start; one BLAS team each is enough.
os.environ.setdefault("OMP_NUM_THREADS", "2")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--golden DIR``: another folder of reference numbers in the same format."""
    parser.addoption("--golden", type=Path, default=Path(__file__).parent / "golden", help="folder of reference numbers (manifest.json, *.npz)")
