"""The one exception that is meant for the user's eyes, and the wrapper that prints it."""

import sys
from collections.abc import Callable, Iterable, Iterator


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


def preview(items: Iterable, limit: int = 5) -> str:
    """The first items as text, and how many more there are."""
    items = [str(item) for item in items]
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def batches_of(loader: Iterable) -> Iterator:
    """Iterates a data loader; a worker that died is reported as such instead of as a library traceback.

    Raises:
        UserError: a worker process was killed (mostly: out of memory).
    """
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"a data-loader worker process died ({str(error).splitlines()[0]}). Mostly this is a lack of memory or of "
            "shared memory: lower runtime.num_workers or train.batch_size, or enlarge /dev/shm. The last checkpoint is "
            "intact; go on with --resume."
        ) from error


def run_script(main: Callable[[], int | None]) -> None:
    """Runs ``main`` and exits: with its return code, or with one clear line on stderr and code 1 on a `UserError`."""
    try:
        code = main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        code = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        code = 130
    sys.stdout.flush()
    sys.exit(code)
