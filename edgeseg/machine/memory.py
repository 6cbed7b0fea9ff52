"""The C library's allocator, tuned for large tensors on a CPU."""

from __future__ import annotations

import ctypes
import platform

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory instead of giving it back to the system.

    By default each tensor above 32 MB is mapped anew and its pages are zeroed by the kernel, in every layer of every
    image or step, which can take longer than the layers. Returns whether it was set; other C libraries are left as
    they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {M_MMAP_MAX: 0, M_ARENA_MAX: 1, M_TRIM_THRESHOLD: LARGEST, M_TOP_PAD: 2**28}
    return all([mallopt(name, value) for name, value in settings.items()])
