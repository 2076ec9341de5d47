"""The front door's figures: requests, refusals, records, and the rate at which they come.

Request threads count; the heart works out the rate.  Children of the counters are kept in plain
dicts, because `labels()` costs more than counting; two threads that miss at once find the same
child.  `_tenants_lock` guards which tenants have a label of their own: the default one, and the
first hundred others that send since the process began.  The rest together are `other`, so that a
client cannot make series without end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from control.auth.models import DEFAULT_TENANT

MAX_TENANTS = 100
RATE_INTERVAL_S = 2.0
_OTHER = "other"

REQUESTS = Counter("ingest_requests", "Requests to ingest, answered.", ["path", "status"])
ERRORS = Counter("ingest_errors", "Records and requests that were refused, by cause.", ["code"])
RECORDS = Counter("ingest_records", "Records accepted.", ["type", "tenant"])
KEYED = Counter(
    "idempotent_requests",
    "Requests with an Idempotency-Key that came as far as its claim, by what became of them.",
    ["outcome"],
)
SECONDS = Histogram(
    "ingest_seconds",
    "From a request's arrival in its thread to its answer, by what became of it.",
    ["outcome"],
    buckets=(
        *(0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012, 0.016, 0.024, 0.032),
        *(0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    ),
)
RATE = Gauge(
    "ingest_rate",
    "Records accepted a second, lately.",
    multiprocess_mode="livesum",
)

_requests: dict[tuple[str, int], Counter] = {}
_records: dict[tuple[str, str], Counter] = {}
_errors: dict[str, Counter] = {}
_seconds: dict[str, Histogram] = {}
_tenants: set[str] = set()
_tenants_lock = threading.Lock()


def count_request(path: str, status: int) -> None:
    child = _requests.get((path, status))
    if child is None:
        child = _requests[path, status] = REQUESTS.labels(path, str(status))
    child.inc()


def observe_request(status: int, seconds: float) -> None:
    """How long an answer took inside the server."""
    outcome = "accepted" if status < 300 else "busy" if status in (429, 503) else "refused"
    child = _seconds.get(outcome)
    if child is None:
        child = _seconds[outcome] = SECONDS.labels(outcome)
    child.observe(seconds)


def count_error(code: str, count: int = 1) -> None:
    """`code` is one that the program itself gives, never text of a client."""
    child = _errors.get(code)
    if child is None:
        child = _errors[code] = ERRORS.labels(code)
    child.inc(count)


def count_records(type: str, tenant: str, count: int) -> None:
    child = _records.get((type, tenant))
    if child is None:
        label = _label_of(tenant)
        child = RECORDS.labels(type, label)
        if label == tenant:
            _records[type, tenant] = child
    child.inc(count)
    rate.add(count)


def count_keyed(outcome: str) -> None:
    """kept, refused, replayed, pending, mismatch, busy or unavailable."""
    KEYED.labels(outcome).inc()


def _label_of(tenant: str) -> str:
    # Whoever sends without a key is counted here, and one request may name a hundred others.
    if tenant == DEFAULT_TENANT:
        return tenant
    with _tenants_lock:
        if tenant not in _tenants:
            if len(_tenants) >= MAX_TENANTS:
                return _OTHER
            _tenants.add(tenant)
    return tenant


class RateMeter:
    """Records a second, smoothed over a few intervals.  `_lock` guards the count."""

    SMOOTHING = 0.5

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._count = 0
        self._since = monotonic()
        self.per_second = 0.0

    def add(self, count: int) -> None:
        with self._lock:
            self._count += count

    def refresh(self) -> float:
        """Work out the rate since the last call, blended with what it was."""
        now = self._monotonic()
        with self._lock:
            count, self._count = self._count, 0
            elapsed, self._since = now - self._since, now
        if elapsed > 0:
            latest = count / elapsed
            self.per_second += self.SMOOTHING * (latest - self.per_second)
            if not count and self.per_second < 0.01:
                self.per_second = 0.0
        return self.per_second


rate = RateMeter()


def refresh_rate() -> None:
    """The heart's task."""
    RATE.set(rate.refresh())
