"""The engine: one log, the router in front of it and the pipelines behind it.

Request threads `offer`; a control thread configures, starts, drains and stops.  `_lock` guards
the set of pipelines and the phase; the routing table is replaced whole, so that offers read it
without a lock.  `_configuring` lets one configuration be carried out after the other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from pipeline.adoption import Adopted, Adoption, Hook
from pipeline.deadletter import DeadLetter
from pipeline.delivery.watchdog import Watchdog
from pipeline.errors import Draining, Refused
from pipeline.ids import RecordIds
from pipeline.intake import room
from pipeline.intake.admission import Closed
from pipeline.intake.inlet import MAX_RECORDS, Inlet, Inlets
from pipeline.intake.room import Remaining
from pipeline.intake.routing import Routed, RoutingTable, reserve
from pipeline.intake.shedding import shed
from pipeline.log.disk import Disk
from pipeline.log.files import LogFiles
from pipeline.log.frame import Frame
from pipeline.log.keeper import Keeper
from pipeline.log.log import Log
from pipeline.log.settings import LogSettings
from pipeline.observer import Observer, Observers
from pipeline.pipeline import Pipeline
from pipeline.receipt import Receipt
from pipeline.record import Record, encode_records
from pipeline.redrive import Redriven, redrive_batch
from pipeline.runtime.clock import Clock, SystemClock
from pipeline.runtime.rounds import Rounds
from pipeline.sink import Sink
from pipeline.spec import PipelineSpec
from pipeline.stats import adopted_stats, engine_stats

log = logging.getLogger(__name__)

UNROUTED = "(unrouted)"
STOP_GRACE_S = 1.0
# What a drain waits at most for room for what inlets hold.
INLET_S = 1.0
# So long the autoscaler rests while there is no pipeline.
SCALE_REST_S = 60.0


class Engine:
    """Takes records in and sees each of them to its end in every sink it is routed to.

    All methods are safe from any thread, in any order, any number of times.  Once stopped an
    engine stays stopped.
    """

    def __init__(
        self,
        *,
        log_id: str,
        ids: RecordIds,
        clock: Clock | None = None,
        log_settings: LogSettings | None = None,
        disk: Disk | None = None,
    ) -> None:
        """Starts nothing.  Without `log_settings` the log is in memory only.

        `log_id` (1 to 64 letters, digits, `-` or `_`) is this life's of the process alone.  Raises
        OSError when its files cannot be made.
        """
        self._clock = clock or SystemClock()
        self._ids = ids
        self._observers = Observers()
        files = None
        if log_settings is not None:
            files = LogFiles.create(
                log_id=log_id, settings=log_settings, disk=disk, observer=self._observers
            )
        self._log = Log(
            log_id=log_id,
            files=files,
            cache_bytes=log_settings.cache_bytes if log_settings is not None else 0,
            clock=self._clock,
            published=self._published,
        )
        if files is not None:
            try:
                self._log.checkpoint()
            except BaseException:
                files.close(remove=True)
                raise
        self._lock = threading.Lock()
        self._configuring = threading.Lock()
        self._pipelines: dict[str, Pipeline] = {}
        self._by_key: dict[str, Pipeline] = {}
        self._retired: list[Pipeline] = []
        self._names: dict[str, str] = {}
        self._routes = RoutingTable(self._lock, lambda: self._pipelines.values())
        self._started = False
        self._inlets = Inlets(clock=self._clock)
        self._refusing = False
        self._stopped = False
        self._closing: threading.Thread | None = None
        self._flush_for = self._request_flush  # one bound method for all receipts
        # By the machine's own clock: they only make the pipelines look at theirs.
        self._watchdog = Watchdog(look=self._look, clock=SystemClock())
        self._scaler = Rounds(name="autoscaler", round=self._scale, clock=SystemClock())
        self._keeper = Keeper(
            own=self._log, logs=self.logs, relieve=self._relieve, clock=self._clock
        )
        self._adoption: Adoption | None = None
        if log_settings is not None:
            self._adoption = Adoption(
                settings=log_settings,
                clock=self._clock,
                attach=self._attach,
                finished=self._detach,
                told=self._observers.log_adopted,
                disk=disk,
            )

    @property
    def log_id(self) -> str:
        """The name of this process's log, as it was given."""
        return self._log.log_id

    @property
    def adoption(self) -> Adoption | None:
        """The logs of dead processes; None where the log is in memory only."""
        return self._adoption

    def logs(self) -> list[Log]:
        """This process's own log, and those it has adopted."""
        adopted = self._adoption.adopted if self._adoption is not None else []
        return [self._log, *(one.log for one in adopted)]

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
                self._routes.clear()
                self._names |= {key: spec.name for key, spec in wanted.items()}
                self._by_key = {p.key: p for p in (*self._retired, *self._pipelines.values())}
            for pipeline in added:
                self._attach_to(pipeline)
            for pipeline in changed:
                pipeline.configure(wanted[pipeline.key])
            with self._lock:
                self._routes.clear()  # some may have been found by the routes of before
            self._scaler.call()  # they may have another rhythm now
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
        """Start delivering what is and will be held; begins the threads."""
        with self._lock:
            if self._started or self._refusing:
                return
            self._started = True
            pipelines = [*self._pipelines.values(), *self._retired]
        for pipeline in pipelines:
            pipeline.start()
        self._watchdog.start()
        self._scaler.start()
        if self._log.files is not None:
            self._keeper.start()
        if self._adoption is not None:
            self._adoption.start()

    # --- adopted logs ----------------------------------------------------------------------

    def on_adopted(self, hook: Hook) -> None:
        """Call `hook(log_id, keys)` for each log that is adopted, with the keys of its frames."""
        if self._adoption is not None:
            self._adoption.on_adopted(hook)

    def key_recorded(self, key: str) -> None:
        """What the key of a frame stands for is kept elsewhere: see `offer`."""
        self._log.key_recorded(key)

    def _attach(self, adopted: Adopted) -> None:
        """Let the pipelines deliver a log; what belongs to no pipeline waits in it."""
        for pipeline in (*self.pipelines, *self.retired):
            self._claim(pipeline, adopted)

    def _attach_to(self, pipeline: Pipeline) -> None:
        for adopted in self._adoption.adopted if self._adoption is not None else ():
            self._claim(pipeline, adopted)

    def _claim(self, pipeline: Pipeline, adopted: Adopted) -> None:
        with self._lock:
            if pipeline.key in adopted.claimed or pipeline.key not in adopted.sinks:
                return
            replays = adopted.claim(pipeline.key)
        if not pipeline.adopt(adopted.log, replays):
            with self._lock:
                adopted.claimed.discard(pipeline.key)

    def _detach(self, journal: Log) -> None:
        """An adopted log is settled: nobody reads it any more, and its ledger is told."""
        last = [one for one in adopted_stats(self) if one["log_id"] == journal.log_id]
        for pipeline in (*self.pipelines, *self.retired):
            pipeline.let_go(journal)
        for figures in last:
            self._observers.log_finished(journal.log_id, figures)

    def _relieve(self, file: int) -> None:
        """The log is nearly full: optional sinks that lag let go of what is in its first file."""
        for pipeline in self.pipelines:
            if not pipeline.spec.required:
                pipeline.let_file_go(file)

    def _look(self) -> None:
        """The watchdog's round."""
        for pipeline in (*self.pipelines, *self.retired):
            try:
                pipeline.look()
            except Exception:  # no pipeline keeps the watchdog from the others
                log.exception("sink %s: the watchdog could not look at it", pipeline.spec.name)
        if self._adoption is not None and not self._stopped:
            self._adoption.finish()

    def _scale(self) -> float:
        """The autoscaler's round; returns the seconds until the next."""
        due = [SCALE_REST_S]
        for pipeline in self.pipelines:
            try:
                due.append(pipeline.scale())
            except Exception:
                log.exception("sink %s could not be scaled; the others are", pipeline.spec.name)
        return min(due)

    def stop_scaling(self, timeout_s: float) -> bool:
        """End the autoscaler: the workers stay as many as they are.

        Returns whether its thread ended within `timeout_s`.  A stop of the engine does this first.
        """
        return self._scaler.stop(timeout_s)

    def flush(self, timeout_s: float) -> bool:
        """Send what is held now and go on; returns whether all of it settled in time.

        Waits at most `timeout_s` (seconds); what did not settle by then goes on.
        """
        self._publish_taken()
        below = self._log.next_position
        due = self._clock.monotonic() + timeout_s
        pipelines = self.pipelines
        for pipeline in pipelines:
            pipeline.flush(below)
        return self._all_settled(pipelines, below, due)

    def _publish_taken(self) -> None:
        """What was taken in and is on its way into a file is there for the sinks on return."""
        if self._log.files is not None and self._log.files.writer is not None:
            self._log.files.writer.flush()

    def drain(self, timeout_s: float, *, last: bool = False) -> bool:
        """Refuse what is new, deliver what is held; returns whether all of it settled in time.

        Waits at most `timeout_s` (seconds), and less where nothing moves any more.  With `last`,
        what fails is tried once more and then left in the log's files, if it has any.
        """
        due = self._clock.monotonic() + timeout_s
        self._close_inlets(timeout_s)
        with self._lock:
            self._refusing = True
            pipelines = [*self._pipelines.values(), *self._retired]
        for pipeline in pipelines:
            pipeline.begin_drain(last=last)
        return self._all_settled(pipelines, None, due)

    def _close_inlets(self, timeout_s: float) -> None:
        """Take in what was put one by one; what there is no room for soon is lost, and counted."""
        self._inlets.close(min(INLET_S, timeout_s / 4))
        for tenant, records in self._inlets.give_up():
            self._drop_unrouted(tenant, records, "shutdown", "there was no room for them at a stop")

    def _all_settled(self, pipelines: list[Pipeline], below: int | None, due: float) -> bool:
        # Each is waited for: one that cannot deliver must not cost the others their time.
        settled = [p.await_settled(below, due - self._clock.monotonic()) for p in pipelines]
        return all(settled)

    def discard(self, key: str) -> None:
        """Drop what waits for the sink `key`, counted as `sink_removed`; it need not be known."""
        # It waits for this sink, too, and would be delivered by a pipeline that retires.
        self._publish_taken()
        with self._lock:
            pipelines = [*self._pipelines.values(), *self._retired]
            known = any(pipeline.key == key for pipeline in pipelines)
        if not known and any(key in one.sinks for one in self._adopted()):
            pipelines.append(self._last_pipeline(key))
        for pipeline in pipelines:
            if pipeline.key == key:
                pipeline.discard("sink_removed")

    def _adopted(self) -> list[Adopted]:
        return self._adoption.adopted if self._adoption is not None else []

    def unclaimed_sinks(self) -> set[str]:
        """The keys of sinks that adopted logs hold records for and no pipeline delivers."""
        return {key for one in self._adopted() for key in one.sinks - one.claimed}

    def _last_pipeline(self, key: str) -> Pipeline:
        """A pipeline for a sink whose configuration is gone, to end what waits for it."""
        spec = PipelineSpec(
            key=key,
            name=self._names.get(key, key),
            sink_factory=_no_sink,
            required=False,
            misconfigured="its configuration is gone",
        )
        pipeline = Pipeline(
            spec=spec, journal=self._log, clock=self._clock, observer=self._observers
        )
        self._attach_to(pipeline)
        with self._lock:
            self._retired.append(pipeline)
            self._by_key = {**self._by_key, key: pipeline}
        pipeline.start()
        pipeline.retire()
        return pipeline

    def redrive(
        self,
        sink_key: str,
        *,
        origin: str,
        number: int,
        letters: Sequence[DeadLetter],
        on_done: Callable[[Redriven], None],
    ) -> None:
        """Send dead letters to their sink once more, as the batch `(origin, number)`.

        The same batch may be sent again: a sink with proofs stores it once.  `on_done` is called
        on a worker's thread, at once or when the engine stops.  Raises KeyError for a sink that is
        not configured, Draining when the engine is stopping.
        """
        if self._refusing:
            raise Draining("the server is stopping", retry_after_s=5.0)
        with self._lock:
            pipeline = self._pipelines[sink_key]
        pipeline.redrive(
            redrive_batch(
                sink_key,
                origin=origin,
                number=number,
                letters=letters,
                now=self._clock.monotonic(),
                on_done=on_done,
            )
        )

    def forget(self, sink_key: str, log_id: str) -> None:
        """What was sent under this name is finished, and will never be sent again."""
        with self._lock:
            pipeline = self._pipelines.get(sink_key)
        if pipeline is not None:
            pipeline.forget(log_id)

    def stop(self, timeout_s: float) -> bool:
        """Drain, then end all threads, within `timeout_s`; returns whether everything settled.

        The last second is kept for aborting writes that hang.  Records that could not be delivered
        stay in the log's files; those that are in memory only are dropped with the reason
        `shutdown`.
        """
        due = self._clock.monotonic() + timeout_s
        grace = min(STOP_GRACE_S, timeout_s / 4)
        self.stop_scaling(grace)
        settled = self.drain(timeout_s - grace, last=True)
        with self._lock:
            pipelines = [*self._pipelines.values(), *self._retired]
            self._stopped = True
        self._watchdog.stop(0.0)
        for pipeline in pipelines:
            pipeline.halt()
        for pipeline in pipelines:
            pipeline.abort(due - grace / 2 - self._clock.monotonic())
        for pipeline in pipelines:
            for name in pipeline.end(due - self._clock.monotonic()):
                settled = False
                log.error("thread %s did not end; its sink hangs in a write", name)
        if self._log.files is not None:
            closing = self._begin_closing(pipelines)
            closing.join(max(0.1, due - self._clock.monotonic()))
            if closing.is_alive():
                settled = False
                log.error(
                    "thread log-close did not end: the disk under %s hangs; what is in the log is "
                    "for the next process",
                    self._log.files.directory,
                )
        return settled and not any(p.figures.dropped["shutdown"] for p in pipelines)

    def _begin_closing(self, pipelines: list[Pipeline]) -> threading.Thread:
        """The thread that closes the logs: a disk that hangs must not hold up the stop.

        One for all who stop the engine, as a second Ctrl-C does while the first still drains: of
        two, each would write to files that the other has closed.
        """
        with self._lock:
            if self._closing is None:
                thread = threading.Thread(
                    target=self._close_logs, args=(pipelines,), name="log-close", daemon=True
                )
                thread.start()
                self._closing = thread
            return self._closing

    def _close_logs(self, pipelines: list[Pipeline]) -> None:
        """Leave what is left to the next process."""
        if self._adoption is not None:
            self._adoption.stop(None)
        self._keeper.stop(None)
        try:
            self._keeper.turn()
        except OSError as error:
            log.error("the log's files cannot be written: %s", error)
        for pipeline in pipelines:
            pipeline.drop_unlogged("shutdown")
        if self._adoption is not None:
            self._adoption.close()
        if not self._log.close():
            log.warning("log %s keeps what is left for the next process", self.log_id)

    def abandon(self) -> None:
        """In a forked child: let go of the locks that belong to the parent."""
        for journal in self.logs():
            if journal.files is not None:
                journal.files.owned.release()

    # --- request threads -------------------------------------------------------------------

    def refusal(self, type: str, tenant: str) -> Refused | None:
        """Why an offer of this type and tenant would be refused whatever its size; cheap."""
        if (unavailable := self.log_refusal()) is not None:
            return unavailable
        try:
            return room.refusal(self._targets(type, tenant), tenant)
        except Refused as refused:
            return refused

    def await_room(
        self, type: str, tenant: str, *, records: int = 1, nbytes: int = 0, timeout_s: float
    ) -> Refused | None:
        """Wait until an offer of so much would be taken, at most so long; why it would not be.

        Room is not reserved.  Those who wait are let in by tenants in turns.
        """
        if (unavailable := self.log_refusal()) is not None:
            return unavailable
        try:
            return room.await_room(
                lambda: self._targets(type, tenant),
                records,
                nbytes,
                tenant=tenant,
                timeout_s=timeout_s,
                clock=self._clock,
            )
        except Refused as refused:
            return refused

    def remaining(self, type: str, tenant: str) -> Remaining | None:
        """How much room the scarcest required sink has left, once that is worth a hint."""
        try:
            return room.remaining(self._targets(type, tenant))
        except Refused:
            return None

    def log_refusal(self) -> Refused | None:
        """Why the log takes nothing at this moment."""
        files = self._log.files
        return files.refusal() if files is not None else None

    def offer(
        self,
        *,
        type: str,
        tenant: str,
        records: Sequence[Record],
        request_id: str = "",
        traceparent: str = "",
        durable: bool = False,
        key: str = "",
        sheddable: bool = True,
    ) -> Receipt:
        """Accept records of one type and tenant, all or none.

        With `durable` it returns once they are in the log's files; `Receipt.logged` tells how safe
        that is.  A frame with a `key` stays in the files until `key_recorded`.  What the sinks
        shed of the lowest levels is no part of what is accepted: `Receipt.shed` counts it; records
        without a level of their own are not `sheddable`.  Raises Saturated, Draining, NoSink or
        LogUnavailable (come back), or TooLarge (send less).
        """
        offered = records
        while True:
            targets = self._targets(type, tenant)
            shedding = shed(targets, offered) if sheddable else None
            if shedding is not None:
                records = shedding.kept
            payload = encode_records(records)
            try:
                routed = reserve(targets, records, payload, tenant=tenant, shedding=shedding)
                break
            except Closed:
                # The route of a moment ago led to a sink that has been taken away since.
                records = offered
        count = len(records)
        received_us = self._clock.time_us()
        id_base = self._ids.take(count, now_us=received_us)
        receipt = Receipt(
            count=count,
            owed=routed.owed,
            unrouted=count - routed.promised,
            shed=0 if shedding is None else shedding.everywhere,
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
            key=key,
        )
        if routed.shares:
            self._append(frame, routed, durable=durable)
        # Only now is it taken in, and with it what goes nowhere.
        if routed.nowhere:
            self._drop_unrouted(
                tenant,
                routed.left_out(records),
                "unrouted",
                "no sink takes records of this type and level",
            )
        for pipeline, passing in routed.full:
            pipeline.pass_by(tenant, passing)
        if shedding is not None:
            shedding.tell(tenant)
        return receipt

    def _drop_unrouted(
        self, tenant: str, records: Sequence[Record], reason: str, error: str
    ) -> None:
        self._log.ledger.passed_by(UNROUTED, tenant, len(records), reason=reason)
        self._observers.records_dropped(UNROUTED, tenant, records, reason, error)

    def inlet(self, *, type: str, tenant: str, max_records: int = MAX_RECORDS) -> Inlet:
        """A way in for records of one type and tenant that come one at a time; see `Inlet`.

        Keep it for as long as such records come, and close it then.  What it holds is taken in by a
        drain or a stop.
        """
        return self._inlets.make(
            tenant=tenant,
            offer=lambda records: self.offer(type=type, tenant=tenant, records=records),
            drop=lambda records, reason, why: self._drop_unrouted(tenant, records, reason, why),
            max_records=max_records,
        )

    @property
    def inlet_records(self) -> int:
        """Records that were put into inlets and are in no log yet."""
        return self._inlets.held

    def _append(self, frame: Frame, routed: Routed, *, durable: bool) -> None:
        """Into the log; whatever comes in between, the room is given back."""
        try:
            # Without the keeper nobody else would write it.
            owed = self._log.append(frame, durable=durable or not self._keeper.running)
        except BaseException:
            routed.give_back()
            raise
        if owed:
            for pipeline in routed.pipelines:
                pipeline.appended(frame)

    def _published(self, frames: Sequence[Frame]) -> None:
        """Frames are in the files and owed from now on: wake whom they concern, once each."""
        told: set[str] = set()
        by_key = self._by_key
        for frame in frames:
            for share in frame.shares:
                if share.sink not in told:
                    told.add(share.sink)
                    if (pipeline := by_key.get(share.sink)) is not None:
                        pipeline.appended(frame)

    def _targets(self, type: str, tenant: str) -> tuple[Pipeline, ...]:
        if self._refusing:
            raise Draining(
                "the server is stopping: send this again to its successor", retry_after_s=5.0
            )
        return self._routes.targets(type, tenant)

    def _request_flush(self, receipt: Receipt) -> None:
        below = self._log.next_position
        for pipeline in self.pipelines:
            if pipeline.spec.required:
                pipeline.flush(below)

    def stats(self) -> dict[str, object]:
        """Everything a process tells about itself, as plain JSON values; see `pipeline.stats`."""
        return engine_stats(self)


def _no_sink() -> Sink:
    raise RuntimeError("a sink whose configuration is gone is never made")


def _same(old: PipelineSpec, new: PipelineSpec) -> bool:
    """Whether two specs say the same; factories are compared by the fingerprint."""
    fields = (
        "name",
        "route",
        "required",
        "paused",
        "settings",
        "fingerprint",
        "misconfigured",
        "dead_letters",
    )
    return all(getattr(old, field) == getattr(new, field) for field in fields)
