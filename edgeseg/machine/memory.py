"""Settings of the C library's memory allocator, for large tensors on a CPU."""

from __future__ import annotations

import ctypes
import platform

# Option numbers from glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory instead of returning it to the system.

    By default every tensor above 32 MB gets new pages, which the kernel fills with zeros, in every layer of every image
    or training step. That can take longer than the layers themselves.

    Returns:
        Whether the allocator took the settings; False with another C library, which stays as it is.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {M_MMAP_MAX: 0, M_ARENA_MAX: 1, M_TRIM_THRESHOLD: LARGEST, M_TOP_PAD: 2**28}
    return all([mallopt(name, value) for name, value in settings.items()])
