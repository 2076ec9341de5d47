"""The engine: one log, the router in front of it and the pipelines behind it.

Request threads `offer`; a control thread configures, starts, drains and stops.  `_lock` guards
the set of pipelines and the phase; the routing table is replaced whole, so that offers read it
without a lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence

from pipeline.errors import Draining, NoSink, Refused
from pipeline.ids import RecordIds
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
        self._observers = Observers()
        self._pipelines: dict[str, Pipeline] = {}
        self._retired: list[Pipeline] = []
        self._routes: dict[tuple[str, str], tuple[Pipeline, ...]] = {}
        self._started = False
        self._refusing: Refused | None = None

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
            self._retired = [p for p in self._retired if p.state != "stopped"]
            return list(self._retired)

    @property
    def journal(self) -> Log:
        return self._log

    def observe(self, observer: Observer) -> None:
        """Tell `observer` of everything from now on."""
        self._observers.add(observer)

    # --- configuration and life ------------------------------------------------------------

    def configure(self, specs: Iterable[PipelineSpec]) -> None:
        """Make the pipelines those of `specs`, by key; the same specs again change nothing.

        A pipeline that is gone from `specs` takes nothing new and delivers what it holds.
        """
        wanted = {spec.key: spec for spec in specs}
        changed: list[tuple[Pipeline, PipelineSpec]] = []
        added: list[Pipeline] = []
        with self._lock:
            gone = [self._pipelines.pop(key) for key in self._pipelines.keys() - wanted.keys()]
            self._retired += gone
            for key, spec in wanted.items():
                pipeline = self._pipelines.get(key)
                if pipeline is None:
                    self._pipelines[key] = pipeline = Pipeline(
                        spec=spec, journal=self._log, clock=self._clock, observer=self._observers
                    )
                    added.append(pipeline)
                elif not _same(pipeline.spec, spec):
                    changed.append((pipeline, spec))
            started = self._started
            self._routes = {}
        for pipeline, spec in changed:
            pipeline.configure(spec)
            self._routes = {}
        for pipeline in added if started else ():
            pipeline.start()
        for pipeline in gone:
            pipeline.retire()

    def start(self) -> None:
        """Start delivering what is and will be held."""
        with self._lock:
            if self._started or self._refusing:
                return
            self._started = True
            pipelines = list(self._pipelines.values())
        for pipeline in pipelines:
            pipeline.start()

    def flush(self, timeout_s: float) -> bool:
        """Send what is held now and go on; returns whether all of it settled in time."""
        below = self._log.next_position
        due = self._clock.monotonic() + timeout_s
        pipelines = self.pipelines
        for pipeline in pipelines:
            pipeline.flush(below)
        return all(p.await_settled(below, due - self._clock.monotonic()) for p in pipelines)

    def drain(self, timeout_s: float) -> bool:
        """Refuse what is new, deliver what is held; returns whether all of it settled in time."""
        with self._lock:
            self._refusing = self._refusing or Draining(
                "the server is stopping: send this again to its successor", retry_after_s=5.0
            )
            pipelines = [*self._pipelines.values(), *self._retired]
        due = self._clock.monotonic() + timeout_s
        for pipeline in pipelines:
            pipeline.begin_drain()
        return all(p.await_settled(None, due - self._clock.monotonic()) for p in pipelines)

    def stop(self, timeout_s: float) -> bool:
        """Drain, then end all threads, within `timeout_s`; returns whether everything settled.

        Records in memory that could not be delivered are dropped with the reason `shutdown`.
        """
        due = self._clock.monotonic() + timeout_s
        settled = self.drain(timeout_s) if self._started else True
        for pipeline in [*self.pipelines, *self.retired]:
            for name in pipeline.stop(max(0.0, due - self._clock.monotonic())):
                settled = False
                log.error("thread %s did not end; its sink hangs in a write", name)
        return settled

    # --- request threads -------------------------------------------------------------------

    def refusal(self, type: str, tenant: str) -> Refused | None:
        """Why an offer of this type and tenant would be refused whatever its size; cheap."""
        if self._refusing is not None:
            return self._refusing
        for pipeline in self._targets(type, tenant):
            if pipeline.spec.required and (refused := pipeline.admission.check()):
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
        if self._refusing is not None:
            raise self._refusing
        targets = self._targets(type, tenant)
        count = len(records)
        payload = encode_records(records)
        shares, pipelines = self._reserve(targets, tenant, records, payload)
        owed = sum(share.required for share in shares)
        receipt = Receipt(count=count, owed=owed, request_flush=self._request_flush)
        frame = Frame(
            type=type,
            tenant=tenant,
            request_id=request_id,
            traceparent=traceparent,
            received_us=self._clock.time_us(),
            arrived_s=self._clock.monotonic(),
            id_base=self._ids.take(count),
            count=count,
            payload=payload,
            shares=shares,
            receipt=receipt,
        )
        receipt.id_base = frame.id_base
        if not shares:
            self._log.ledger.accepted(UNROUTED, tenant, count)
            self._log.ledger.dropped(UNROUTED, tenant, count, reason="unrouted")
            return receipt
        self._log.append(frame)
        for pipeline in pipelines:
            pipeline.appended(frame)
        return receipt

    def _targets(self, type: str, tenant: str) -> tuple[Pipeline, ...]:
        targets = self._routes.get((type, tenant))
        if targets is None:
            with self._lock:
                if not self._pipelines:
                    raise NoSink("no sink is configured: add one in the admin", retry_after_s=5.0)
                routes = self._routes
                targets = tuple(
                    p for p in self._pipelines.values() if p.spec.route.takes(type, tenant)
                )
            if len(routes) >= _ROUTES_CACHED:
                self._routes = routes = {}
            routes[type, tenant] = targets
        return targets

    def _reserve(
        self,
        targets: tuple[Pipeline, ...],
        tenant: str,
        records: Sequence[Record],
        payload: bytes,
    ) -> tuple[tuple[Share, ...], list[Pipeline]]:
        """Room in every pipeline that takes some of the records, or none anywhere."""
        count, total = len(records), payload_bytes(payload, len(records))
        shares: list[Share] = []
        pipelines: list[Pipeline] = []
        try:
            # Required sinks first: after a refusal an optional one would have dropped in vain.
            for pipeline in sorted(targets, key=_optional) if len(targets) > 1 else targets:
                spec = pipeline.spec
                wanted = spec.route.count(records)
                if not wanted:
                    continue
                nbytes = total if wanted == count else total * wanted // count
                if spec.required:
                    pipeline.admission.reserve(wanted, nbytes)
                elif not pipeline.make_room(wanted, nbytes):
                    pipeline.pass_by(tenant, spec.route.passing(records))
                    continue
                pipelines.append(pipeline)
                shares.append(
                    Share(
                        sink=spec.key,
                        count=wanted,
                        nbytes=nbytes,
                        min_severity=spec.route.min_severity if wanted < count else 0,
                        required=spec.required,
                    )
                )
        except Refused:
            for pipeline, share in zip(pipelines, shares, strict=True):
                pipeline.admission.release(share.count, share.nbytes, drained=False)
            raise
        return tuple(shares), pipelines

    def _request_flush(self, receipt: Receipt) -> None:
        below = self._log.next_position
        for pipeline in self.pipelines:
            if pipeline.spec.required:
                pipeline.flush(below)

    def stats(self) -> dict[str, object]:
        """Everything a process tells about itself, as plain JSON values; see `pipeline.stats`."""
        return engine_stats(self)


def _optional(pipeline: Pipeline) -> bool:
    return not pipeline.spec.required


def _same(old: PipelineSpec, new: PipelineSpec) -> bool:
    """Whether two specs say the same; factories are compared by the fingerprint."""
    fields = ("name", "route", "required", "paused", "settings", "fingerprint", "misconfigured")
    return all(getattr(old, field) == getattr(new, field) for field in fields)
