"""Tenants and API keys: who may send and read what. Keys are checked from memory alone."""

from __future__ import annotations


def bootstrap(token: str | None = None) -> bool:
    """Create the first API key where none exists, from `COLLECTOR_BOOTSTRAP_API_KEY` unless given.

    True when it was created. Raises ImproperlyConfigured when the value is too easy to guess.
    """
    from control.auth.bootstrap import bootstrap as run

    return run(token)
