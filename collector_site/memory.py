"""Keeps what is freed from staying with the process: settings of the C library's allocator.

glibc gives each thread an arena of its own.  Request bodies and frames, made on one thread and
freed on another, leave holes in all of them, and an overload that comes in waves grows the process
long after the buffers are full.  Called once, in the parent, before the workers are forked.
"""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8
ARENAS = 2


def bound_arenas() -> bool:
    """Let all threads share two arenas; False where the allocator is another one."""
    try:
        return bool(ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS))
    except (OSError, AttributeError):
        return False
