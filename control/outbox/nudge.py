"""Waking this process's deliverer, if it has one.  The event is its own guard."""

from __future__ import annotations

import threading

wanted = threading.Event()


def nudge() -> None:
    """Have the outbox looked at now rather than at the next poll."""
    wanted.set()
