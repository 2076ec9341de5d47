"""Owns: what a run is asked to send. Immutable."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Load:
    """Bounded in records, and in time when `duration_s` is given."""

    records: int
    clients: int
    batch: int = 1
    rate: float = 0.0  # records per second; 0: closed loop
    duration_s: float = 0.0
    ack: str = ""
    keys: bool = False  # an Idempotency-Key with each request
    api_key: str = ""
    timeout_s: float = 30.0
    retry_for_s: float = 60.0
    # A client that does not honour Retry-After comes back after this long; None: it honours it.
    retry_pause_s: float | None = None
