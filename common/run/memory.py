"""Memory of the C library: freed arrays stay with the process, so that the next image's need not be mapped anew.

Of arrays of an image's size, glibc gives the memory back to the system and asks for it again, page by page: up to a
third of the time that counting an image takes.
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # numbers of glibc's malloc.h
KEPT = 256 << 20  # bytes that may stay free at the end of the heap
LARGEST = 32 << 20  # bytes of an array that comes from the heap; glibc takes no more


def keep_freed_memory() -> None:
    """Has the C library keep what is freed; nothing where it is not glibc."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(MMAP_THRESHOLD, LARGEST)
