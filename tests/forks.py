"""The processes of a job without what it costs to start them: forked from this one, which has imported everything.

What a fork costs grows with this one's memory.
"""

import ctypes
import faulthandler
import gc
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.distributed import TCPStore

SECONDS = 120


def return_memory() -> None:
    """Gives freed memory back to the system: every later fork would copy its page tables."""
    gc.collect()
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda spare: None)  # glibc's
        trim(0)


def run_together(main: Callable[[], None], world: int = 2) -> str:
    """Calls ``main``, which ends like a script, in processes with the environment that torchrun gives its own.

    Returns:
        The output of all processes.

    Raises:
        AssertionError: a process has failed or takes too long; with the output, and where it hung.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # at a port that is free
    environment = {
        "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, str(rank)) for rank in range(world)]
        processes = [
            multiprocessing.get_context("fork").Process(target=_run, args=(main, rank, environment, file))
            for rank, file in enumerate(files)
        ]
        for process in processes:
            process.start()
        _wait(processes)
        output = "".join(f"--- process {rank}\n{file.read_text()}" for rank, file in enumerate(files))
    assert all(process.exitcode == 0 for process in processes), output
    return output


def _run(main: Callable[[], None], rank: int, environment: dict[str, str], file: Path) -> None:
    """In a new process: all that it prints goes to a file."""
    os.environ |= {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)  # those of the process before the fork are not in this one
    with file.open("w", buffering=1) as output:
        sys.stdout = sys.stderr = output
        for number in (1, 2):
            os.dup2(output.fileno(), number)
        faulthandler.dump_traceback_later(SECONDS, file=output)
        main()


def _wait(processes: list[multiprocessing.Process]) -> None:
    """Until all have ended; one that outlives another's failure, or its time, is killed."""
    deadline = time.monotonic() + SECONDS + 5
    while any(process.is_alive() for process in processes) and time.monotonic() < deadline:
        if any(process.exitcode for process in processes):
            deadline = min(deadline, time.monotonic() + 5)
        time.sleep(0.02)
    for process in processes:
        if process.is_alive():
            process.kill()
        process.join()
