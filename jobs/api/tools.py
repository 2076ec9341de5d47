"""What all requests of a process share: the Store, and whether there is room.

Made at the first request; `_lock` guards the making.
"""

from __future__ import annotations

import threading

from django.conf import settings

from jobs.api import outlook
from jobs.api.saturation import Saturation
from jobs.store.database import store
from jobs.store.protocol import Store
from pipeline.runtime.clock import SystemClock

_lock = threading.Lock()
_saturation: Saturation | None = None


def the_store() -> Store:
    """Where this process keeps jobs."""
    return store()


def saturation() -> Saturation:
    global _saturation
    if _saturation is None:
        with _lock:
            if _saturation is None:
                jobs = settings.COLLECTOR.jobs
                _saturation = Saturation(
                    counts=lambda: the_store().counts(),
                    capacity=jobs.capacity,
                    resume=jobs.resume,
                    clock=SystemClock(),
                    later=outlook.for_later,
                    lives=outlook.runner_lives,
                )
    return _saturation


def reset() -> None:
    """Make it anew at the next request (for tests)."""
    global _saturation
    with _lock:
        _saturation = None
