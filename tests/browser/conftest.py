"""Tests in a browser run where their folder is named, as ``scripts/test_browser.sh`` does, not in the whole suite."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips them elsewhere."""
    if not any("browser" in argument for argument in config.args):
        for item in items:
            if item.path.parent == Path(__file__).parent:
                item.add_marker(pytest.mark.skip(reason="run by scripts/test_browser.sh"))
