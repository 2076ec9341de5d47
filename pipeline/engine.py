"""The engine: one log, the router in front of it and the pipelines behind it.

Request threads `offer`; a control thread configures, starts, drains and stops.  `_lock` guards
the set of pipelines and the phase; the routing table is replaced whole, so that offers read it
without a lock.  `_configuring` lets one configuration be carried out after the other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence

from pipeline.errors import Draining, NoSink, Refused
from pipeline.ids import RecordIds
from pipeline.intake.admission import Closed
from pipeline.log.frame import Frame, Share
from pipeline.log.log import Log
from pipeline.observer import Observer, Observers
from pipeline.pipeline import Pipeline
from pipeline.receipt import Receipt
from pipeline.record import Record, encode_records, payload_bytes
from pipeline.runtime.clock import Clock, SystemClock
from pipeline.spec import PipelineSpec
from pipeline.stats import engine_stats

log = logging.getLogger(__name__)

UNROUTED = "(unrouted)"
STOP_GRACE_S = 1.0
_ROUTES_CACHED = 10_000


class Engine:
    """Takes records in and sees each of them to its end in every sink it is routed to.

    All methods are safe from any thread, in any order, any number of times.  Once stopped an
    engine stays stopped.
    """

    def __init__(self, *, log_id: str, ids: RecordIds, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._ids = ids
        self._log = Log(log_id=log_id)
        self._lock = threading.Lock()
        self._configuring = threading.Lock()
        self._observers = Observers()
        self._pipelines: dict[str, Pipeline] = {}
        self._retired: list[Pipeline] = []
        self._names: dict[str, str] = {}
        self._routes: dict[tuple[str, str], tuple[Pipeline, ...]] = {}
        self._started = False
        self._refusing = False
        self._flush_for = self._request_flush  # one bound method for all receipts

    @property
    def log_id(self) -> str:
        return self._log.log_id

    @property
    def pipelines(self) -> list[Pipeline]:
        """The configured pipelines."""
        with self._lock:
            return list(self._pipelines.values())

    @property
    def retired(self) -> list[Pipeline]:
        """Pipelines whose configuration is gone and which still deliver what they hold."""
        with self._lock:
            self._retired = [p for p in self._retired if not p.gone]
            return [p for p in self._retired if not p.ended]

    @property
    def names(self) -> dict[str, str]:
        """The last name of every sink that was ever configured, by key: tallies outlive sinks."""
        with self._lock:
            return dict(self._names)

    @property
    def journal(self) -> Log:
        return self._log

    def observe(self, observer: Observer) -> None:
        """Tell `observer` of everything from now on."""
        self._observers.add(observer)

    # --- configuration and life ------------------------------------------------------------

    def configure(self, specs: Iterable[PipelineSpec]) -> None:
        """Make the pipelines those of `specs`, by key; the same specs again change nothing.

        A pipeline that is gone from `specs` takes nothing new and delivers what it holds; one that
        is wanted again meanwhile goes on.  An engine that drains changes and ends pipelines still,
        and adds none.
        """
        wanted = {spec.key: spec for spec in specs}
        with self._configuring:
            with self._lock:
                gone = [self._pipelines.pop(key) for key in self._pipelines.keys() - wanted.keys()]
                self._retired += gone
                new = wanted.keys() - self._pipelines.keys() if not self._refusing else ()
                added = [self._add(wanted[key]) for key in wanted if key in new]
                changed = [p for p in self._pipelines.values() if not _same(p.spec, wanted[p.key])]
                started = self._started
                self._routes = {}
                self._names |= {key: spec.name for key, spec in wanted.items()}
            for pipeline in changed:
                pipeline.configure(wanted[pipeline.key])
            with self._lock:
                self._routes = {}  # some may have been found by the routes of before
            for pipeline in added if started else ():
                pipeline.start()
            for pipeline in gone:
                pipeline.retire()

    def _add(self, spec: PipelineSpec) -> Pipeline:
        """A pipeline for `spec`, with what an earlier one of its key still holds; `_lock` is held.

        Two with one key would share a cursor and settle each other's records.
        """
        for pipeline in self._retired:
            if pipeline.key == spec.key and pipeline.revive():
                self._retired.remove(pipeline)
                break
        else:
            pipeline = Pipeline(
                spec=spec, journal=self._log, clock=self._clock, observer=self._observers
            )
        self._pipelines[spec.key] = pipeline
        return pipeline

    def start(self) -> None:
        """Start delivering what is and will be held."""
        with self._lock:
            if self._started or self._refusing:
                return
            self._started = True
            pipelines = [*self._pipelines.values(), *self._retired]
        for pipeline in pipelines:
            pipeline.start()

    def flush(self, timeout_s: float) -> bool:
        """Send what is held now and go on; returns whether all of it settled in time."""
        below = self._log.next_position
        due = self._clock.monotonic() + timeout_s
        pipelines = self.pipelines
        for pipeline in pipelines:
            pipeline.flush(below)
        return self._all_settled(pipelines, below, due)

    def drain(self, timeout_s: float) -> bool:
        """Refuse what is new, deliver what is held; returns whether all of it settled in time."""
        with self._lock:
            self._refusing = True
            pipelines = [*self._pipelines.values(), *self._retired]
        due = self._clock.monotonic() + timeout_s
        for pipeline in pipelines:
            pipeline.begin_drain()
        return self._all_settled(pipelines, None, due)

    def _all_settled(self, pipelines: list[Pipeline], below: int | None, due: float) -> bool:
        # Each is waited for: one that cannot deliver must not cost the others their time.
        settled = [p.await_settled(below, due - self._clock.monotonic()) for p in pipelines]
        return all(settled)

    def discard(self, key: str) -> None:
        """Drop what waits for the sink `key`, counted as `sink_removed`; it need not be known."""
        with self._lock:
            pipelines = [*self._pipelines.values(), *self._retired]
        for pipeline in pipelines:
            if pipeline.key == key:
                pipeline.discard("sink_removed")

    def stop(self, timeout_s: float) -> bool:
        """Drain, then end all threads, within `timeout_s`; returns whether everything settled.

        The last second is kept for aborting writes that hang.  Records in memory that could not be
        delivered are dropped with the reason `shutdown`.
        """
        due = self._clock.monotonic() + timeout_s
        grace = min(STOP_GRACE_S, timeout_s / 4)
        settled = self.drain(timeout_s - grace)
        with self._lock:
            pipelines = [*self._pipelines.values(), *self._retired]
        for pipeline in pipelines:
            pipeline.halt()
        for pipeline in pipelines:
            pipeline.abort(due - grace / 2 - self._clock.monotonic())
        for pipeline in pipelines:
            for name in pipeline.end(due - self._clock.monotonic()):
                settled = False
                log.error("thread %s did not end; its sink hangs in a write", name)
        return settled and not any(p.figures.dropped["shutdown"] for p in pipelines)

    # --- request threads -------------------------------------------------------------------

    def refusal(self, type: str, tenant: str) -> Refused | None:
        """Why an offer of this type and tenant would be refused whatever its size; cheap."""
        try:
            for pipeline in self._targets(type, tenant):
                if pipeline.spec.required and (refused := pipeline.admission.check()):
                    return refused
        except Refused as refused:
            return refused
        return None

    def offer(
        self,
        *,
        type: str,
        tenant: str,
        records: Sequence[Record],
        request_id: str = "",
        traceparent: str = "",
    ) -> Receipt:
        """Accept records of one type and tenant, all or none.

        Raises Saturated, Draining or NoSink (come back), or TooLarge (send less).
        """
        count = len(records)
        payload = encode_records(records)
        while True:
            try:
                routed = self._reserve(self._targets(type, tenant), tenant, records, payload)
                break
            except Closed:
                continue  # the route of a moment ago led to a sink that has been taken away since
        if routed.nowhere:
            self._unrouted(tenant, records, routed)
        for pipeline in routed.full:
            pipeline.pass_by(tenant, records)
        received_us = self._clock.time_us()
        id_base = self._ids.take(count, now_us=received_us)
        receipt = Receipt(
            count=count,
            owed=routed.owed,
            unrouted=count - routed.promised,
            id_base=id_base,
            request_flush=self._flush_for,
        )
        frame = Frame(
            type=type,
            tenant=tenant,
            request_id=request_id,
            traceparent=traceparent,
            received_us=received_us,
            arrived_s=self._clock.monotonic(),
            id_base=id_base,
            count=count,
            payload=payload,
            shares=tuple(routed.shares),
            receipt=receipt,
        )
        if routed.shares:
            self._log.append(frame)
            for pipeline in routed.pipelines:
                pipeline.appended(frame)
        return receipt

    def _targets(self, type: str, tenant: str) -> tuple[Pipeline, ...]:
        """The pipelines that may take such records, the required ones first."""
        if self._refusing:
            raise Draining(
                "the server is stopping: send this again to its successor", retry_after_s=5.0
            )
        targets = self._routes.get((type, tenant))
        if targets is not None:
            return targets
        with self._lock:
            if not self._pipelines:
                raise NoSink("no sink is configured: add one in the admin", retry_after_s=5.0)
            # Only required sinks refuse; after that an optional one would have dropped in vain.
            found = [p for p in self._pipelines.values() if p.spec.route.takes(type, tenant)]
            targets = tuple(sorted(found, key=_optional))
            if len(self._routes) >= _ROUTES_CACHED:
                self._routes = {}
            self._routes[type, tenant] = targets
        return targets

    def _reserve(
        self,
        targets: tuple[Pipeline, ...],
        tenant: str,
        records: Sequence[Record],
        payload: bytes,
    ) -> _Routed:
        """Room in every pipeline that takes some of the records, or none anywhere."""
        count, total = len(records), payload_bytes(payload, len(records))
        routed = _Routed(nowhere=count)
        try:
            for pipeline in targets:
                spec = pipeline.spec
                wanted = spec.route.count(records)
                if not wanted:
                    continue
                # Severity is a threshold: what the lowest of them lets pass goes somewhere.
                routed.nowhere = min(routed.nowhere, count - wanted)
                nbytes = total if wanted == count else total * wanted // count
                if spec.required:
                    pipeline.admission.reserve(wanted, nbytes)
                    routed.owed += 1
                    if wanted > routed.promised:
                        routed.promised = wanted
                elif not pipeline.make_room(wanted, nbytes):
                    routed.full.append(pipeline)
                    continue
                routed.pipelines.append(pipeline)
                routed.shares.append(
                    Share(
                        sink=spec.key,
                        count=wanted,
                        nbytes=nbytes,
                        min_severity=spec.route.min_severity if wanted < count else 0,
                        required=spec.required,
                    )
                )
        except BaseException:
            for pipeline, share in zip(routed.pipelines, routed.shares, strict=True):
                pipeline.give_back(share.count, share.nbytes)
            raise
        return routed

    def _unrouted(self, tenant: str, records: Sequence[Record], routed: _Routed) -> None:
        """Count and tell of records that pass no sink's route, or only part of one."""
        self._log.ledger.passed_by(UNROUTED, tenant, routed.nowhere, reason="unrouted")
        taking = [pipeline.spec.route for pipeline in (*routed.pipelines, *routed.full)]
        gone = [r for r in records if not any(r.severity >= t.min_severity for t in taking)]
        self._observers.records_dropped(
            UNROUTED, tenant, gone, "unrouted", "no sink takes records of this type and level"
        )

    def _request_flush(self, receipt: Receipt) -> None:
        below = self._log.next_position
        for pipeline in self.pipelines:
            if pipeline.spec.required:
                pipeline.flush(below)

    def stats(self) -> dict[str, object]:
        """Everything a process tells about itself, as plain JSON values; see `pipeline.stats`."""
        return engine_stats(self)


class _Routed:
    """Where an offer goes: a share for each pipeline with room, the optional ones that are full,
    and how many records no sink takes.  `owed` counts the required sinks, `promised` the records
    that the one of them with the most of them takes."""

    __slots__ = ("full", "nowhere", "owed", "pipelines", "promised", "shares")

    def __init__(self, *, nowhere: int) -> None:
        self.nowhere = nowhere
        self.owed = self.promised = 0
        self.full: list[Pipeline] = []
        self.pipelines: list[Pipeline] = []
        self.shares: list[Share] = []


def _optional(pipeline: Pipeline) -> bool:
    return not pipeline.spec.required


def _same(old: PipelineSpec, new: PipelineSpec) -> bool:
    """Whether two specs say the same; factories are compared by the fingerprint."""
    fields = ("name", "route", "required", "paused", "settings", "fingerprint", "misconfigured")
    return all(getattr(old, field) == getattr(new, field) for field in fields)
