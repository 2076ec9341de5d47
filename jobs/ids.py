"""Job ids: UUIDs of version 7, so that a later job has a greater id, and what an id tells of time.

The 12 bits after the milliseconds are their fraction (RFC 9562, method 3), so that ids of different
processes are in order to a quarter of a microsecond of their clocks; those of one process always
are, also when its clock is set back.  `_lock` guards the last one's time.
"""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from uuid import UUID

_SHIFT = 80
_MAX_MS = 2**48 - 1

_lock = threading.Lock()
_last = 0


def new_job_id() -> UUID:
    """Greater than every id that this process has made."""
    global _last
    ms, rest_ns = divmod(time.time_ns(), 1_000_000)
    moment = ms << 12 | rest_ns * 4096 // 1_000_000
    with _lock:
        _last = moment = max(moment, _last + 1)
    head = moment >> 12 << 16 | 0x7000 | moment & 0xFFF
    tail = 0b10 << 62 | int.from_bytes(os.urandom(8), "big") >> 2
    return UUID(int=head << 64 | tail)


def submitted_at(id: UUID) -> datetime:
    """To the millisecond, by the clock of whoever took it in."""
    return datetime.fromtimestamp((id.int >> _SHIFT) / 1000, UTC)


def first_id_at(moment: datetime) -> UUID:
    """Not greater than the id of any job that was submitted from then on."""
    ms = min(max(int(moment.timestamp() * 1000), 0), _MAX_MS)
    return UUID(int=ms << _SHIFT)
