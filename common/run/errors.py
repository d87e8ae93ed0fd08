"""The exception for a user's mistakes, and the wrapper that prints it."""

import errno
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

from common.run.gpu_memory import note_gpu_memory


class UserError(Exception):
    """Bad input. The message says what is wrong, where, and what to do; no traceback is shown.

    The keyword ``message`` exists for data-loader workers: PyTorch rebuilds a worker's exception from the text of
    its traceback, and passes it by this name to exceptions that have an attribute ``message``.
    """

    message = "error"

    def __init__(self, text: str = "", message: str = "") -> None:
        super().__init__(text or _last_user_error(message))


def _last_user_error(traceback_text: str) -> str:
    """The message inside the text of a worker's traceback."""
    return traceback_text.rpartition("UserError: ")[2].strip()


def first_line(error: Exception) -> str:
    """The first line of an exception's text, cut to a length that fits a message."""
    return (str(error).strip().splitlines() or [""])[0][:300]


def preview(items: Iterable, limit: int = 5) -> str:
    """The first items as text, and the number of further ones."""
    items = [str(item) for item in items]
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def explained(error: Exception) -> str:
    """The message for the user; empty for an error that needs a traceback.

    A killed data-loader worker is reported by a signal handler of PyTorch, and therefore wherever the main thread is.
    """
    if isinstance(error, UserError):
        return str(error)
    text, line = str(error), first_line(error)
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EMFILE, errno.ENFILE) or any(words in text for words in NO_DESCRIPTORS):
        return (
            f"too many open files ({line}). Allow more with: ulimit -n 65535 (now {_descriptors()}); or use fewer "
            f"workers (--num_workers). {INTACT}"
        )
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return (
            f"a data-loader worker process died ({line}). Mostly this is a lack of memory or of shared memory: use "
            f"fewer workers or a smaller batch, or enlarge /dev/shm. {INTACT}"
        )
    if type(error).__name__ == "OutOfMemoryError":
        return (
            f"the GPU's memory is full ({line}). Use train.accumulation=2 or more (the same results), a smaller "
            f"infer.batch_size, or runtime.precision=bf16. {INTACT}"
        )
    if isinstance(error, MemoryError) or number == errno.ENOMEM or any(words in text for words in NO_MEMORY):
        return (
            f"the memory is full ({line or 'no more memory'}). Use fewer workers (--num_workers), a smaller batch, or "
            f"train.accumulation=2 or more. {INTACT}"
        )
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk or the quota is full ({line}). Free some space, then give the same command again. {INTACT}"
    if number in (errno.EROFS, errno.EIO, errno.ESTALE):
        return f"the disk cannot be used ({line}). {INTACT}"
    return ""


INTACT = "Files written before are intact."
NO_DESCRIPTORS = ("received 0 items of ancdata", "Too many open files")
NO_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "std::bad_alloc")
PEER_ENDED = ("closed by peer", "Connection reset", "Broken pipe", "Timed out waiting", "ProcessGroup", "NCCL", "gloo")


def _descriptors() -> str:
    try:
        import resource
    except ImportError:  # not on Windows
        return "unknown"
    return str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def run_script(main: Callable[[], int | None]) -> None:
    """Runs ``main`` and exits: with its return code, or with one clear line on stderr and code 1 on a user's error.

    Of several processes the first that fails says why; the others, whose next exchange fails because of it, are silent.
    """
    try:
        code = main() or 0
        sys.stdout.flush()
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to be written goes nowhere
            sys.exit(128 + signal.SIGPIPE)
        message = explained(error) or _lost_peer(error)
        if not message:
            _end_bars()
            raise
        if _is_first_failure():
            _end_bars()
            print(f"error: {message}", file=sys.stderr, flush=True)
        code = 1
    except KeyboardInterrupt:
        _end_bars()
        print("interrupted", file=sys.stderr, flush=True)
        code = 130
    sys.stdout.flush()
    note_gpu_memory()
    if code and _process_group():
        os._exit(code)  # threads of the process group may wait for processes that have ended
    sys.exit(code)


def _is_unread() -> bool:
    """Whether the program that reads this one's output has ended, such as ``head``."""
    try:
        reader = select.poll()
        reader.register(sys.stdout.fileno(), 0)
        return bool(reader.poll(0))
    except (AttributeError, OSError, ValueError):  # not on Windows; a text in memory
        return False


def _process_group() -> Any:
    """PyTorch's module of distribution, if this is one of several processes that have met; else None."""
    module = sys.modules.get("torch.distributed")
    return module if module and module.is_available() and module.is_initialized() else None


def _lost_peer(error: Exception) -> str:
    """The message for an exchange that failed because another process has ended; empty for other errors."""
    if _process_group() and isinstance(error, RuntimeError) and any(words in str(error) for words in PEER_ENDED):
        return f"another process of the run has ended, perhaps for lack of memory ({first_line(error)}). {INTACT}"
    return ""


def _is_first_failure() -> bool:
    """Whether no other process of the run has reported a failure."""
    group = _process_group()
    if not group:
        return True
    try:
        store = group.distributed_c10d._get_default_store()
        return store.add("failures", 1) == 1
    except RuntimeError:  # the process that keeps the store has ended
        return os.environ.get("RANK") == "0"


def _end_bars() -> None:
    """Closes progress bars, so that the message has a line of its own."""
    tqdm = sys.modules.get("tqdm")
    bars = list(getattr(tqdm.tqdm, "_instances", ())) if tqdm else []
    for bar in bars:
        bar.close()
    if bars or _process_group():  # the bar of another process
        print(file=sys.stderr)
