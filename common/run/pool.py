"""A bounded pool of processes for CPU work beside the network."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import cv2

from common.run.errors import UserError

WAITING = 2  # jobs beyond the running ones: enough to keep the processes busy


class WorkerPool:
    """Does jobs in processes of one thread each, while the caller makes further ones.

        with WorkerPool(num_workers, "CRF") as pool:
            for ...:
                pool.submit(function, *arguments)

    `submit` waits while all processes are busy and two more jobs are waiting, which bounds the memory. The first error
    is raised by the next `submit` or at the end of the ``with`` block.
    """

    def __init__(self, num_workers: int, title: str) -> None:
        """Starts the processes; 0 works in the calling one.

        Args:
            title: of the processes, for messages.
        """
        self.title = title
        self._error: BaseException | None = None
        self._free = threading.BoundedSemaphore(num_workers + WAITING)
        # Not forked from the caller, which may hold CUDA and threads; the fork server imports once for all processes.
        has_server = "forkserver" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if has_server else "spawn")
        self._pool = ProcessPoolExecutor(num_workers, context, initializer=_start) if num_workers else None

    def __enter__(self) -> "WorkerPool":
        return self

    def submit(self, function: Callable[..., object], *arguments: object) -> None:
        """Queues a job: a module's function and its arguments; its result is dropped."""
        if self._pool is None:
            function(*arguments)
            return
        self._free.acquire()
        self._raise_error()
        try:
            job = self._pool.submit(function, *arguments)
        except BrokenProcessPool as error:
            raise self._died() from error
        job.add_done_callback(self._finish)

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            self._raise_error()

    def _finish(self, job: Future) -> None:
        if not job.cancelled() and self._error is None:
            self._error = job.exception()
        self._free.release()

    def _raise_error(self) -> None:
        if isinstance(self._error, BrokenProcessPool):
            raise self._died() from self._error
        if self._error is not None:
            raise self._error

    def _died(self) -> UserError:
        return UserError(
            f"a {self.title} process died; mostly for lack of memory: use fewer processes. All files that were written "
            "are complete."
        )


def _start() -> None:
    """One thread each, as the processes are the parallelism; none outlives the script, however the script ends."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read by what a job imports
    cv2.setNumThreads(1)
    if "torch" in sys.modules:  # imported by the script already
        sys.modules["torch"].set_num_threads(1)
    threading.Thread(target=_end_with_script, daemon=True).start()


def _end_with_script() -> None:
    script = multiprocessing.parent_process()
    if script is not None:  # None in the script's own process, where nothing calls this
        script.join()
        os._exit(1)


def usable_workers(wanted: int) -> int:
    """``wanted`` worker processes, but at most one per processor core of this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(wanted, cores)
