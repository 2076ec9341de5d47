"""Keeps the key ring up to date with what other processes changed, from the heart's thread."""

from __future__ import annotations

from control.auth.keys import fingerprint_rows, keyring, load_rows
from control.processes.heart import Heart


def register(heart: Heart) -> None:
    heart.watch("api-keys", lambda: fingerprint_rows(load_rows()), lambda: keyring().refresh())
