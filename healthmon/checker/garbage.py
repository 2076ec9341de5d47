"""Python's collector of cycles, kept from holding the loop up.

With thousands of targets a full collection looks at half a million objects that stay, for a tenth
of a second and more, while every probe waits.  What is there once the targets are loaded is left
out of it, and it comes round less often: probes themselves leave few cycles behind.
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
