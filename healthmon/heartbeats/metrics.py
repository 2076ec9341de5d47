"""Counters of pings, in prometheus_client's own registry.  Any thread; labels are bounded."""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter


@cache
def pings() -> Counter:
    return Counter(
        "heartbeat_pings_total",
        "Pings that were asked for at a secret address, by what they were answered.",
        ["answer"],
    )


@cache
def ignored() -> Counter:
    return Counter(
        "heartbeat_pings_ignored_total",
        "Pings that were taken in and then had no target to belong to.",
        ["reason"],
    )
