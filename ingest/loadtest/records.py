"""Owns: the records that a load test sends, and how they are told apart afterwards.

Each carries the run's id and its own number, so that a stored one can be matched with the answer
it got. Runs on the generator's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

RUN_FIELD = "loadtest_run"
SEQUENCE_FIELD = "loadtest_seq"
SERVICE = "loadtest"
# A run counts on so many counters of its own, and leaves them behind.
COUNTED = "loadtest"
PART_LABEL = "part"
PARTS = 10

_LEVELS = ("INFO", "INFO", "INFO", "INFO", "INFO", "DEBUG", "DEBUG", "WARN", "WARN", "ERROR")
_ROUTES = ("/api/cart", "/api/checkout", "/api/search", "/login")
_STATUSES = ("up", "up", "up", "degraded", "down")
_ACTIONS = ("login", "logout", "order.create", "order.cancel", "profile.update")


def _log(run: str, timestamp: str, n: int) -> str:
    return (
        f'{{"timestamp":"{timestamp}","level":"{_LEVELS[n % 10]}","service":"{SERVICE}",'
        f'"message":"GET {_ROUTES[n % 4]} answered in {n % 487} ms",'
        f'"{RUN_FIELD}":"{run}","{SEQUENCE_FIELD}":{n}}}'
    )


def _health(run: str, timestamp: str, n: int) -> str:
    return (
        f'{{"timestamp":"{timestamp}","service":"{SERVICE}","status":"{_STATUSES[n % 5]}",'
        f'"latency_ms":{n % 300},"{RUN_FIELD}":"{run}","{SEQUENCE_FIELD}":{n}}}'
    )


def _event(run: str, timestamp: str, n: int) -> str:
    return (
        f'{{"timestamp":"{timestamp}","user_id":"{SERVICE}-{n % 1000}",'
        f'"action":"{_ACTIONS[n % 5]}","{RUN_FIELD}":"{run}","{SEQUENCE_FIELD}":{n}}}'
    )


def _increment(run: str, timestamp: str, n: int) -> str:
    return (
        f'{{"timestamp":"{timestamp}","counter":"{COUNTED}","by":1,'
        f'"labels":{{"{RUN_FIELD}":"{run}","{PART_LABEL}":{n % PARTS}}}}}'
    )


MAKERS: dict[str, Callable[[str, str, int], str]] = {
    "/logs": _log,
    "/health": _health,
    "/event": _event,
    "/counters": _increment,
}
PATHS = tuple(MAKERS)


@dataclass(slots=True)
class Request:
    """A run of numbered records, and what has happened to it so far."""

    first: int
    count: int
    due: float | None = None  # when the schedule wanted it sent; None in a closed loop
    begun: float | None = None  # the first attempt
    # When the server had last answered anybody, as it stood when this one was last lost.
    lost_after: float | None = None
    stamp: str = ""  # the records' timestamp; a repeat is the same request, to the byte
    attempts: int = 0
    # Attempts whose answer never came though all was sent: each may or may not be stored.
    unanswered: int = 0

    @property
    def since(self) -> float:
        """When the time that it may be retried for began."""
        assert self.begun is not None
        return self.begun

    @property
    def sequence(self) -> range:
        return range(self.first, self.first + self.count)


class RecordMaker:
    """Writes the bodies of one run; a body is made again for a repeat, so nothing is kept."""

    def __init__(self, *, path: str, run: str) -> None:
        self.path, self.run = path, run
        self._make = MAKERS[path]

    def body(self, request: Request) -> bytes:
        if not request.stamp:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            request.stamp = now.replace("+00:00", "Z")
        make, run, stamp = self._make, self.run, request.stamp
        return "\n".join([make(run, stamp, n) for n in request.sequence]).encode()

    def key(self, request: Request) -> str:
        """The request's Idempotency-Key, the same for each attempt."""
        return f"loadtest-{self.run}-{request.first}"

    @staticmethod
    def content_type(batch: int) -> str:
        return "application/json" if batch == 1 else "application/x-ndjson"
