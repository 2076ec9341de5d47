"""Owns: what a run counted, and the figures made of it.

Written by the generator's thread alone; read by the same thread for progress and at the end.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

KEPT_REASONS = 5  # so that a server that says something new each time cannot fill the memory

# MAYBE: some of the request were accepted and some shed, and nobody knows which.
UNSENT, ACKNOWLEDGED, REJECTED, REFUSED, MAYBE = 0, 1, 2, 3, 4


@dataclass(kw_only=True)
class Tally:
    records: int
    started: float = 0.0
    finished: float = 0.0
    requests: int = 0
    records_accepted: int = 0
    records_rejected: int = 0
    records_shed: int = 0
    records_unaccepted: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    lost_connections: int = 0
    bad_answers: int = 0
    max_late_s: float = 0.0
    latencies: array[float] = field(default_factory=lambda: array("d"))
    # Why records were not accepted, and how often; those beyond the first few are only counted.
    reasons: Counter[str] = field(default_factory=Counter)
    other_reasons: int = 0
    acks: Counter[str] = field(default_factory=Counter)
    # Answers that an earlier attempt with the same Idempotency-Key had earned.
    replayed: int = 0
    interrupted: bool = False
    ended: str = ""  # why the run was given up before all was sent
    # One byte a record, so that a million records' fates cost a megabyte.
    fates: bytearray = field(default_factory=bytearray)
    # Records of requests that were repeated after an answer was lost: how often each may be found.
    allowed: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.fates:
            self.fates = bytearray(self.records)

    @property
    def seconds(self) -> float:
        return max(self.finished - self.started, 1e-9)

    @property
    def records_sent(self) -> int:
        answered = self.records_accepted + self.records_rejected + self.records_shed
        return answered + self.records_unaccepted

    @property
    def records_unsent(self) -> int:
        return self.fates.count(UNSENT)

    @property
    def succeeded(self) -> bool:
        sent = self.records - self.records_unsent
        whole = not (self.interrupted or self.ended)
        return sent > 0 and self.records_accepted == sent and whole

    def note(self, reason: str) -> None:
        if reason in self.reasons or len(self.reasons) < KEPT_REASONS:
            self.reasons[reason] += 1
        else:
            self.other_reasons += 1

    @property
    def rejections(self) -> list[str]:
        """A line for each reason, with how often it was given."""
        told = [
            reason if count == 1 else f"{reason} ({count:,} times)"
            for reason, count in self.reasons.items()
        ]
        if self.other_reasons:
            told.append(f"other reasons ({self.other_reasons:,} times)")
        return told

    def summary(self) -> dict[str, Any]:
        ordered = sorted(self.latencies)
        return {
            "records": self.records_sent,
            "requests": self.requests,
            "seconds": round(self.seconds, 4),
            "records_per_second": round(self.records_accepted / self.seconds, 1),
            "requests_per_second": round(len(self.latencies) / self.seconds, 1),
            "records_accepted": self.records_accepted,
            "records_rejected": self.records_rejected,
            "records_shed": self.records_shed,
            "records_unaccepted": self.records_unaccepted,
            "records_unsent": self.records_unsent,
            "latency_ms": {
                "p50": _milliseconds(ordered, 0.50),
                "p95": _milliseconds(ordered, 0.95),
                "p99": _milliseconds(ordered, 0.99),
                "max": _milliseconds(ordered, 1.0),
            },
            "statuses": {str(status): n for status, n in sorted(self.statuses.items())},
            "retries": dict(sorted(self.retries.items())),
            "lost_connections": self.lost_connections,
            "bad_answers": self.bad_answers,
            "acks": dict(sorted(self.acks.items())),
            "replayed": self.replayed,
            "max_late_ms": round(self.max_late_s * 1000, 2),
            "rejections": self.rejections,
            "interrupted": self.interrupted,
            "ended": self.ended,
        }


def percentile(ordered: list[float], fraction: float) -> float | None:
    """Nearest rank: a latency that really occurred."""
    if not ordered:
        return None
    rank = -int(-fraction * len(ordered) // 1)  # the ceiling
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def _milliseconds(ordered: list[float], fraction: float) -> float | None:
    value = percentile(ordered, fraction)
    return None if value is None else round(value * 1000, 3)
