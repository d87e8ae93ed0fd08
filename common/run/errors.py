"""The exception for a user's mistakes, and the wrapper that prints it."""

import errno
import sys
from collections.abc import Callable, Iterable


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
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return (
            f"a data-loader worker process died ({str(error).splitlines()[0]}). Mostly this is a lack of memory or "
            "of shared memory: use fewer workers or a smaller batch, or enlarge /dev/shm. Files written before are "
            "intact."
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error}. Files written before are intact."
    return ""


def run_script(main: Callable[[], int | None]) -> None:
    """Runs ``main`` and exits: with its return code, or with one clear line on stderr and code 1 on a user's error."""
    try:
        code = main() or 0
    except Exception as error:
        if not explained(error):
            raise
        print(f"error: {explained(error)}", file=sys.stderr, flush=True)
        code = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        code = 130
    sys.stdout.flush()
    sys.exit(code)
