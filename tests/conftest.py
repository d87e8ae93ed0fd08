"""Options of the whole suite, and its distribution over processes; its fixtures: tests/fixtures.py."""

import gc
import os
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

# Scripts that tests start share the cores, and sums of one thread are the same on every machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Reference numbers (``--golden DIR``, ``--complete``) and recorded runs (``--traces DIR --data DIR``)."""
    golden = Path(__file__).parent / "golden"
    parser.addoption("--golden", type=Path, default=golden, help="folder of reference numbers (manifest.json, *.npz)")
    parser.addoption("--complete", action="store_true", help="also tests that take minutes")
    parser.addoption("--write-curves", action="store_true", help="write tests/curves/*.csv in place of comparing")
    parser.addoption("--traces", type=Path, help="folder of recorded training runs (*.npz), see tests/traces")
    parser.addoption("--data", type=Path, help="folder below which the images of the recorded runs lie")


def pytest_configure(config: pytest.Config) -> None:
    """Brings the fixtures, with all that they import, but not into a process that only hands tests to others.

    The garbage collector need not look through what is imported, nor through each test's few objects.
    """
    gc.set_threshold(10_000, 20, 20)
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("tests.fixtures")


# What takes longest, first: two processes end together when the last pieces of work are small.
LONGEST = (
    "test_training.py", "test_golden.py dig", "test_golden.py crt", "test_virtual_device.py", "test_golden.py cti",
    "test_golden.py pcss", "test_golden.py toco", "test_train_pcss.py", "test_readme.py", "test_curves.py",
    "test_startup.py", "test_backbones.py", "test_plan.py", "test_reproduce.py", "test_distributed.py",
    "test_train_irn.py", "test_train_cti.py", "test_check_data.py", "test_legacy.py", "test_train_dig.py",
    "test_pipeline.py", "test_prepare_data.py", "test_golden.py deeplab", "test_golden.py irn",
    "test_backbone_pairs.py",
)  # fmt: skip


def piece_of(nodeid: str) -> str:
    """What stays in one process: a file, whose tests share fixtures; of the golden cases a method's: networks."""
    path, _, name = nodeid.partition("::")
    return f"{path} {name[12:].partition('_')[0]}" if name.startswith("test_golden[") else path


class _LongestFirst(LoadFileScheduling):
    """``--dist loadfile``, but by `piece_of`."""

    def _split_scope(self, nodeid: str) -> str:
        return piece_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling | None:
    """Files by the time that they take instead of by their number of tests."""
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return _LongestFirst(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts by `LONGEST`; all other files come after these."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(piece_of(item.nodeid).rpartition("/")[2], len(ranks)))


def pytest_collection_finish() -> None:
    """All that is imported by now stays."""
    gc.freeze()


def pytest_unconfigure() -> None:
    """At the end of the process it does, as libraries in C++ expect."""
    gc.unfreeze()
