"""What jobs tell Prometheus: called where things happen, on any thread.

Made once a process when first asked for.  With several server processes prometheus_client keeps
them in files; a runner of its own writes them for the server, see `jobs.metricservice`.  Labels
are bounded: the first `MAX_NAMES` types and downstream services keep their names, the rest read
`other`; outcomes and reasons are words of this package.

`_lock` guards which names are known and the totals last seen; metrics have locks of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from jobs.states import CANCELLED, DEAD, OPEN, SUCCEEDED
from sinks.metrics import metrics as sink_metrics
from sinks.metricset import BREAKER_VALUES

POOL = "jobs"
OTHER = "other"
MAX_NAMES = 100

# What became of an attempt, beside the states that a job ends in.
RETRYING = "retrying"  # it failed, and the job is tried again
DELAYED = "delayed"  # a downstream service did not take its calls; not spent
GIVEN_BACK = "given_back"  # its runner stops; not spent
LOST = "lost"  # its claim was another's by the time
ATTEMPTS = frozenset({SUCCEEDED, DEAD, CANCELLED, RETRYING, DELAYED, GIVEN_BACK, LOST})
ENDS = frozenset({SUCCEEDED, DEAD, CANCELLED})
REFUSALS = frozenset({"saturated", "share", "type", "payload", "size", "key", "database"})

_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600,
)  # fmt: skip


class JobMetrics:
    """The metrics themselves, in one registry.  `workers` is the gauge of all pools."""

    def __init__(
        self, *, registry: CollectorRegistry = REGISTRY, workers: Gauge | None = None
    ) -> None:
        self._lock = threading.Lock()
        self._names: dict[str, set[str]] = {}
        self._totals: dict[tuple[str, str], int] = {}
        self._gauged: set[str] = set()
        # By type and outcome: finding a metric's labels costs more than counting.
        self._ends: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._waits: dict[str, Histogram] = {}
        self._attempts: dict[tuple[str, str], Counter] = {}
        self._registry = registry
        self.submitted = self._counter("jobs_submitted", "Jobs taken in.", "type")
        self.refused = self._counter("jobs_refused", "Submissions that were refused.", "reason")
        self.ended = self._counter("jobs", "Jobs that ended, by how.", "type", "outcome")
        self.attempts = self._counter(
            "job_attempts", "Attempts of jobs, by what became of them.", "type", "outcome"
        )
        self.rescues = self._counter(
            "job_rescues", "Jobs taken from runners that died, by what became of them.", "outcome"
        )
        self.fenced = self._counter(
            "job_writes_refused", "Writes of late workers, whose job was another's by then."
        )
        self.waited = self._histogram(
            "job_wait_seconds", "From when a job could have run until it was claimed.", "type"
        )
        self.took = self._histogram(
            "job_processing_duration_seconds",
            "The last attempt of jobs that ended.",
            "type",
            "outcome",
        )
        # Every server reads the same counts of the database.
        self.depth = self._gauge(
            "job_queue_depth", "Jobs that have not ended, by state.", "state", mode="livemax"
        )
        self.workers = workers or sink_metrics().active_workers
        self.calls = self._counter("downstream_calls", "Calls made.", "downstream")
        self.failures = self._counter("downstream_failures", "Calls that failed.", "downstream")
        self.trips = self._counter(
            "downstream_breaker_trips", "Times that the breaker opened.", "downstream"
        )
        self.breaker = self._gauge(
            "downstream_breaker_state",
            "The downstream service's breaker: 0 closed, 1 half-open, 2 open.",
            "downstream",
            mode="livemax",
        )
        self.in_flight = self._gauge("downstream_calls_in_flight", "Calls under way.", "downstream")
        self.schedules = self._counter(
            "job_schedules_fired",
            "Times of schedules, by what became of them.",
            "outcome",
        )
        self.forgotten = self._counter(
            "jobs_forgotten", "Finished jobs deleted as they were past their time.", "state"
        )

    # --- taking in -------------------------------------------------------------------------

    def count_submitted(self, type_name: str, jobs: int = 1) -> None:
        self.submitted.labels(self._bounded("type", type_name)).inc(jobs)

    def count_refused(self, reason: str) -> None:
        """`reason` is one of REFUSALS."""
        self.refused.labels(reason if reason in REFUSALS else OTHER).inc()

    # --- running ---------------------------------------------------------------------------

    def observe_started(self, type_name: str, waited_s: float) -> None:
        """A job was claimed, so long after it could have run."""
        name = self._bounded("type", type_name)
        waited = self._waits.get(name)
        if waited is None:
            waited = self._waits[name] = self.waited.labels(name)
        waited.observe(max(0.0, waited_s))

    def observe_ended(self, type_name: str, outcome: str, seconds: float) -> None:
        """A job ended; `outcome` is the state it is in now, `seconds` what its attempt took."""
        key = (self._bounded("type", type_name), outcome if outcome in ENDS else OTHER)
        end = self._ends.get(key)
        if end is None:
            end = self._ends[key] = (self.ended.labels(*key), self.took.labels(*key))
        end[0].inc()
        end[1].observe(max(0.0, seconds))

    def count_attempt(self, type_name: str, outcome: str) -> None:
        """An attempt is over; `outcome` is one of ATTEMPTS."""
        key = (self._bounded("type", type_name), outcome if outcome in ATTEMPTS else OTHER)
        attempts = self._attempts.get(key)
        if attempts is None:
            attempts = self._attempts[key] = self.attempts.labels(*key)
        attempts.inc()

    def count_rescued(self, jobs: int, outcome: str = "queued") -> None:
        """Jobs of a dead runner were queued again; or are dead."""
        if jobs > 0:
            self.rescues.labels(outcome if outcome in ("queued", DEAD) else OTHER).inc(jobs)

    def count_fenced(self, writes: int = 1) -> None:
        """Writes were refused, as the job was not the worker's any more."""
        self.fenced.inc(writes)

    def set_workers(self, workers: int) -> None:
        self.workers.labels(POOL).set(workers)

    # --- downstream services ---------------------------------------------------------------

    def note_downstreams(self, states: Iterable[Mapping[str, Any]]) -> None:
        """What `Downstreams.states()` tells; services that it leaves out read 0."""
        found = {str(one["name"]): one for one in states}
        with self._lock:
            gone, self._gauged = self._gauged - found.keys(), set(found)
        for name in gone:
            self._set_downstream(name, {})
        for name, one in found.items():
            self._set_downstream(name, one)
            for what, counter in (
                ("calls", self.calls),
                ("failures", self.failures),
                ("trips", self.trips),
            ):
                more = self._more(what, name, int(one.get(what) or 0))
                counter.labels(self._bounded("downstream", name)).inc(more)

    def _set_downstream(self, name: str, one: Mapping[str, Any]) -> None:
        label = self._bounded("downstream", name)
        state = str(one.get("breaker") or one.get("state") or "closed")
        self.breaker.labels(label).set(BREAKER_VALUES.get(state.replace("-", "_"), 0))
        self.in_flight.labels(label).set(int(one.get("in_flight") or 0))

    # --- the rest --------------------------------------------------------------------------

    def note_depth(self, counts: Mapping[int, Mapping[str, int]]) -> None:
        """What `Store.counts()` tells."""
        for state in OPEN:
            jobs = sum(of.get(state, 0) for of in counts.values())
            self.depth.labels(state).set(max(0, jobs))

    def count_schedule(self, outcome: str) -> None:
        """A time of a schedule came: submitted, skipped (missed or overlapping), or failed."""
        known = ("submitted", "missed", "overlap", "failed")
        self.schedules.labels(outcome if outcome in known else OTHER).inc()

    def count_forgotten(self, state: str, jobs: int) -> None:
        if jobs > 0:
            self.forgotten.labels(state).inc(jobs)

    # --- within ----------------------------------------------------------------------------

    def _bounded(self, label: str, name: str) -> str:
        names = self._names.get(label)
        if names is not None and name in names:
            return name
        with self._lock:
            names = self._names.setdefault(label, set())
            if len(names) >= MAX_NAMES:
                return OTHER
            names.add(name)
        return name

    def _more(self, what: str, of: str, total: int) -> int:
        """By how much a total has grown since it was last seen; one that began anew is all new."""
        with self._lock:
            before = self._totals.get((what, of), 0)
            self._totals[what, of] = total
        return total - before if total >= before else total

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self._registry, buckets=_SECONDS)

    def _gauge(self, name: str, text: str, *labels: str, mode: Any = "livesum") -> Gauge:
        return Gauge(name, text, labels, registry=self._registry, multiprocess_mode=mode)


# These have the labels they need in every process; what other processes tell too says which.
OWN = frozenset(
    {
        "jobs_submitted", "jobs_refused", "jobs", "job_attempts", "job_rescues",
        "job_writes_refused", "job_wait_seconds", "job_processing_duration_seconds",
        "job_queue_depth", "downstream_calls", "downstream_failures", "downstream_breaker_trips",
        "downstream_breaker_state", "downstream_calls_in_flight", "job_schedules_fired",
        "jobs_forgotten",
    }
)  # fmt: skip


_making = threading.Lock()


@cache
def _made() -> JobMetrics:
    return JobMetrics()


def metrics() -> JobMetrics:
    """This process's, in prometheus_client's own registry."""
    with _making:
        return _made()


def count_submitted(type_name: str, jobs: int = 1) -> None:
    metrics().count_submitted(type_name, jobs)


def count_refused(reason: str) -> None:
    metrics().count_refused(reason)


def observe_started(type_name: str, waited_s: float) -> None:
    metrics().observe_started(type_name, waited_s)


def observe_ended(type_name: str, outcome: str, seconds: float) -> None:
    metrics().observe_ended(type_name, outcome, seconds)


def count_attempt(type_name: str, outcome: str) -> None:
    metrics().count_attempt(type_name, outcome)


def count_rescued(jobs: int, outcome: str = "queued") -> None:
    metrics().count_rescued(jobs, outcome)


def count_fenced(writes: int = 1) -> None:
    metrics().count_fenced(writes)


def set_workers(workers: int) -> None:
    metrics().set_workers(workers)


def note_downstreams(states: Iterable[Mapping[str, Any]]) -> None:
    metrics().note_downstreams(states)


def note_depth(counts: Mapping[int, Mapping[str, int]]) -> None:
    metrics().note_depth(counts)


def count_schedule(outcome: str) -> None:
    metrics().count_schedule(outcome)


def count_forgotten(state: str, jobs: int) -> None:
    metrics().count_forgotten(state, jobs)
