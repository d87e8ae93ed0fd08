"""The pool of processes. (What it is used for is tested with the CRF, the labels and the masks.)"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.run.errors import UserError
from common.run.files import ROOT
from common.run.pool import WorkerPool

SCRIPT = """
import sys
from common.run.pool import WorkerPool
from tests.test_pool import note_and_wait

if __name__ == "__main__":
    with WorkerPool(2, "test") as pool:
        for index in range(2):
            pool.submit(note_and_wait, sys.argv[1], index)
"""


def note_and_wait(folder: str, index: int) -> None:
    """Tells the process's id, then works for longer than the test waits."""
    (Path(folder) / f"{index}.part").write_text(str(os.getpid()))
    (Path(folder) / f"{index}.part").rename(Path(folder) / f"{index}.pid")
    time.sleep(120)


def die(code: int) -> None:
    os._exit(code)


def fail(text: str) -> None:
    raise UserError(text)


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> bool:
    until = time.monotonic() + seconds
    while not is_so() and time.monotonic() < until:
        time.sleep(0.05)
    return is_so()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_no_process_outlives_a_killed_script(tmp_path: Path, number: int) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # of the processes, too
    script = subprocess.Popen([sys.executable, tmp_path / "script.py", tmp_path], env=environment)
    files = [tmp_path / f"{index}.pid" for index in range(2)]
    assert wait_until(lambda: all(file.is_file() for file in files))
    script.send_signal(number)
    script.wait(timeout=60)
    workers = [int(file.read_text()) for file in files]
    assert wait_until(lambda: not any(map(is_running, workers)))


def test_a_job_s_error_is_raised() -> None:
    with pytest.raises(UserError, match="no such thing"), WorkerPool(1, "test") as pool:
        pool.submit(fail, "no such thing")


def test_a_dead_process_is_named() -> None:
    with pytest.raises(UserError, match="a test process died"), WorkerPool(1, "test") as pool:
        pool.submit(die, 3)
