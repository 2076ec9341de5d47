"""Python's collector of cycles, kept from holding a process up.

A full collection looks at all objects that stay, a hundred and fifty thousand in a server and half
a million in a checker with thousands of targets, for a tenth of a second and more, while every
thread and every probe waits.  What is there once a process is ready is left out of it, and it comes
round less often: requests, jobs and probes leave few cycles behind.
"""

from __future__ import annotations

import gc

# Allocations beyond frees before the young are looked at; 700 would be many times a second.
YOUNG = 20_000
# Of the collections of one age before the next is looked at.
MIDDLE, OLD = 20, 50


def settle_memory() -> None:
    """Collect once, and leave what remains out of further collections."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
