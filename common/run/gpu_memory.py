"""The GPU memory that scripts needed, for the process that started them: each writes it when it ends."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

FOLDER = "GPU_MEMORY_FOLDER"  # environment variable: a folder with a file for each process


@contextlib.contextmanager
def gpu_memory_of_scripts() -> Iterator[Callable[[], int]]:
    """A block in which scripts are started.

    Yields:
        A function: the largest number of bytes that PyTorch held on the GPU of one of the scripts that have ended, and
        of those that they started; 0 if none used a GPU.
    """
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get(FOLDER)
        os.environ[FOLDER] = folder
        try:
            yield lambda: max((int(file.read_text()) for file in Path(folder).iterdir()), default=0)
        finally:
            del os.environ[FOLDER]
            if before is not None:
                os.environ[FOLDER] = before


def note_gpu_memory() -> None:
    """Writes the most bytes that PyTorch has held on this process's GPU, if there are any and a process asks for it."""
    folder = os.environ.get(FOLDER)
    torch = sys.modules.get("torch")
    if folder and torch and torch.cuda.is_initialized():
        with contextlib.suppress(OSError):  # a measurement must not make a script fail
            Path(folder, str(os.getpid())).write_text(str(torch.cuda.max_memory_allocated()))
