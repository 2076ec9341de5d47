"""Keeps the key ring up to date with what other processes changed, and counts the processes that
share the keys' rates; from the heart's thread.
"""

from __future__ import annotations

from control.auth.keys import keyring
from control.auth.limits import COUNT_INTERVAL_S, key_limits
from control.processes.heart import WATCH_INTERVAL_S, Heart


def register(heart: Heart) -> None:
    # The ring itself tells whether anything differs from what it holds: also from what a thread
    # read inside a transaction that was then rolled back.
    heart.every("api-keys", WATCH_INTERVAL_S, lambda: keyring().refresh())
    heart.every("key-limits", COUNT_INTERVAL_S, lambda: key_limits().count_processes())
