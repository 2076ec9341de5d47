"""Job ids: UUIDs of version 7, so that a later job has a greater id, to the millisecond."""

from __future__ import annotations

import os
import time
from uuid import UUID


def new_job_id() -> UUID:
    """48 bits of milliseconds since 1970, then randomness (RFC 9562)."""
    number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | 0x7 << 76
    return UUID(int=number & ~(0b11 << 62) | 0b10 << 62)
