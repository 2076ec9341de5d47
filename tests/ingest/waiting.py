"""Waiting for what another thread does, where that thread gives no signal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    """Whether the condition came true within a generous time."""
    due = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > due:
            return False
        pause.wait(0.005)
    return True
