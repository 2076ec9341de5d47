"""Rounds that once failed; each run of many rounds plays them first.

A seed brings back the requests, the fault and its choices; what the machine's timing did then it
may do again.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Regression:
    fault: str
    database: str
    seed: int
    why: str


REGRESSIONS = (
    Regression(
        fault="torn_log",
        database="sqlite",
        seed=208,
        why="a tail torn off an adopted log left its ledger out by the torn frame's records",
    ),
    Regression(
        fault="torn_log",
        database="sqlite",
        seed=308,
        why="a damaged frame lost its key, and the request that was sent again was stored twice",
    ),
)
