"""A log's life on a faulty disk, without a thread: appended to, delivered, crashed, recovered.

`Life` is one process: its own log, those it has adopted, and for each sink what waits there.
`Store` is what all processes deliver to: a sink that keeps proofs, or would notice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.log.files import LogFiles
from pipeline.log.frame import Frame, Share
from pipeline.log.log import ALREADY_STORED, STORED, End, Log
from pipeline.log.recovery import Recovered, recover
from pipeline.log.root import orphans
from pipeline.log.settings import LogSettings
from pipeline.observer import Observer
from pipeline.receipt import Receipt
from pipeline.record import ERROR, Batch, Record, encode_records
from pipeline.runtime.clock import FakeClock
from pipeline.settings import PipelineSettings
from pipeline.source import Chore, Source
from tests.pipeline.faultydisk import FaultyDisk
from tests.pipeline.support import record, share

SINKS = ("all", "errors", "optional")
LEAST = {"all": 0, "errors": ERROR, "optional": 0}


class Store:
    """A sink's table with the proofs of its batches; it outlives every process."""

    def __init__(self) -> None:
        self.proofs: dict[tuple[str, int], list[int]] = {}
        self.stored: Counter[int] = Counter()
        self.messages: dict[int, str] = {}
        self.by_log: Counter[str] = Counter()
        # Records that were in a batch and are not when it comes again.
        self.shrunk: set[int] = set()
        # Records that were stored while no file held them: of a process that dies before it could
        # note their end nobody knows that.
        self.unlogged: set[int] = set()

    def write(self, batch: Batch) -> bool:
        """Store a batch once; returns whether it was there already."""
        ids = [one.id for one in batch.records]
        known = self.proofs.setdefault((batch.log_id, batch.number), ids)
        if known is not ids:
            # What was in memory alone is gone with its process.
            self.shrunk.update(set(known) - set(ids))
            still = [one for one in known if one in ids]
            assert still == ids, f"batch {batch.batch_id} was {known} and is {ids}"
            return True
        for part in batch.parts:
            if part.frame.file < 0:
                self.unlogged.update(one.id for one in part.records)
        for one in batch.records:
            self.stored[one.id] += 1
            self.messages[one.id] = one.message
        self.by_log[batch.log_id] += len(ids)
        return False


class Held:
    """One log as a process has it: a source for each sink, and the batches under way."""

    def __init__(self, log: Log, sources: dict[str, Source]) -> None:
        self.log = log
        self.sources = sources
        self.batches: dict[str, list[Batch]] = {sink: [] for sink in sources}

    def imbalances(self) -> dict[tuple[str, str], int]:
        """The tallies that do not balance with what is held."""
        with self.log.lock:
            in_flight: Counter[tuple[str, str]] = Counter()
            for sink, source in self.sources.items():
                held = source.waiting_by_tenant()
                for batch in self.batches[sink]:
                    for part in batch.parts:
                        held[part.tenant] += part.count
                in_flight.update(self.log.ledger.by_tally(sink, held))
            tallies = self.log.ledger.tallies()
        wrong = {key: tally.imbalance(in_flight.pop(key, 0)) for key, tally in tallies.items()}
        return {key: n for key, n in wrong.items() if n} | dict(+in_flight)


class Life:
    """One process."""

    def __init__(
        self,
        *,
        name: str,
        root: Path,
        disk: FaultyDisk,
        clock: FakeClock,
        settings: PipelineSettings,
        fsync: str = "group",
        segment_bytes: int = 4096,
        cache_bytes: int = 0,
        max_bytes: int = 1 << 20,
    ) -> None:
        self.name = name
        self.disk = disk
        self.clock = clock
        self.settings = settings
        self.log_settings = LogSettings(
            directory=root,
            fsync=fsync,
            segment_bytes=segment_bytes,
            cache_bytes=cache_bytes,
            max_bytes=max_bytes,
        )
        self.adopted: list[Held] = []
        files = LogFiles.create(
            log_id=name, settings=self.log_settings, disk=disk, observer=Observer()
        )
        assert files.writer is not None
        self.writer = files.writer
        self.writer._monotonic = clock.monotonic
        self.log = Log(log_id=name, files=files, cache_bytes=cache_bytes, clock=clock)
        self.own = Held(
            self.log, {s: Source(log=self.log, sink=s, settings=settings) for s in SINKS}
        )
        try:
            self.log.checkpoint()
        except BaseException:
            files.owned.release()
            raise

    @property
    def logs(self) -> list[Held]:
        return [self.own, *self.adopted]

    # --- taking in -------------------------------------------------------------------------

    def frame(self, of: list[Record], sinks: set[str], *, tenant: str, id_base: int) -> Frame:
        shares = []
        for sink in sorted(sinks):
            if any(one.severity >= LEAST[sink] for one in of):
                required = sink != "optional"
                shares.append(share(of, sink=sink, min_severity=LEAST[sink], required=required))
        return new_frame(of, shares, tenant=tenant, id_base=id_base, arrived=self.clock)

    def keep(self) -> None:
        """What the keeper does in a turn."""
        self.writer.write_queued()
        self.writer.prepare()
        self.writer.sync()
        for held in self.logs:
            held.log.note_passed()
            files = held.log.files
            assert files is not None
            if files.wants_checkpoint:
                held.log.checkpoint()
            elif files.journal.waiting:
                held.log.commit(sync=False)

    # --- delivering ------------------------------------------------------------------------

    def form(self, held: Held, sink: str) -> bool:
        """Read what comes next for a sink, and make a batch of it; False if nothing waits."""
        source = held.sources[sink]
        now = self.clock.monotonic()
        chore = source.chore(now)
        if chore is not None:
            self._run(held, source, chore)
            return True
        if source.batcher.due_s(now, shutdown=True) != 0:
            return False
        batch = source.take(shutdown=True)
        assert batch is not None, "one was due"
        held.batches[sink].append(batch)
        return True

    def _run(self, held: Held, source: Source, chore: Chore) -> None:
        try:
            chore.run()
        except OSError:
            chore.failed = True
        batch = source.finish(chore, self.clock.monotonic())
        if batch is not None:
            held.batches[source.sink].append(batch)

    def deliver(self, held: Held, sink: str, index: int, store: Store, *, noted: bool) -> bool:
        """An attempt, from the journal to what follows from it; False if it has to wait."""
        batch = held.batches[sink][index]
        try:
            held.log.commit(sync=True)
        except OSError:
            return False
        already = store.write(batch)
        held.batches[sink].pop(index)
        self._end(held, batch, ALREADY_STORED if already else STORED)
        if noted:
            try:
                held.log.commit(sync=False)
            except OSError:
                pass
        return True

    @staticmethod
    def _end(held: Held, batch: Batch, how: str) -> None:
        ends = [End(part.tenant, how, part.count) for part in batch.parts]
        held.log.end(batch.sink, batch.parts, ends, number=batch.number)

    def split(self, held: Held, sink: str, index: int) -> None:
        batch = held.batches[sink][index]
        if batch.count < 2:
            return
        halves = list(batch.halves())
        numbers = held.log.split(batch.number, sink, halves)
        source = held.sources[sink]
        held.batches[sink][index : index + 1] = [
            source.batch(parts, batch.reason, number)
            for parts, number in zip(halves, numbers, strict=True)
        ]

    def drop_oldest(self, held: Held) -> list[int]:
        """An optional sink lets its oldest records go; returns their ids."""
        source = held.sources["optional"]
        part = source.batcher.take_oldest()
        if part is None:
            return []
        ends = [End(part.tenant, "backlog", part.count)]
        held.log.end("optional", [part], ends, read=source.batcher.read)
        return [one.id for one in part.records]

    def drop_unlogged(self) -> None:
        """At a stop, what no file holds is lost with the process."""
        for sink, batches in self.own.batches.items():
            for batch in batches:
                mine = [part for part in batch.parts if part.frame.file < 0]
                batch.parts = [part for part in batch.parts if part.frame.file >= 0]
                batch.count = sum(part.count for part in batch.parts)
                ends = [End(part.tenant, "shutdown", part.count) for part in mine]
                self.log.end(sink, mine, ends)
            self.log.drop_unread_unlogged(sink, "shutdown")

    # --- other processes' logs -------------------------------------------------------------

    def adopt(self) -> int:
        """Take over the logs of processes that are gone."""
        found = 0
        for owned in orphans(self.log_settings.directory):
            try:
                recovered = recover(
                    owned, settings=self.log_settings, clock=self.clock, disk=self.disk
                )
            except OSError:
                owned.release()
                continue
            except BaseException:
                owned.release()
                raise
            self.adopted.append(self._held(recovered))
            found += 1
        return found

    def _held(self, recovered: Recovered) -> Held:
        sources = {
            sink: Source(
                log=recovered.log,
                sink=sink,
                settings=self.settings,
                replays=[one for one in recovered.replays if one.sink == sink],
                adopted=True,
            )
            for sink in SINKS
        }
        for key in recovered.keys:
            recovered.log.key_recorded(key)
        return Held(recovered.log, sources)

    def finish(self) -> list[Held]:
        """Let go of the adopted logs that are settled."""
        done = [held for held in self.adopted if held.log.settled]
        for held in done:
            held.log.close()
            self.adopted.remove(held)
        return done

    def let_go(self) -> None:
        """The process is gone: the kernel forgets its locks."""
        for held in self.logs:
            if held.log.files is not None:
                held.log.files.owned.release()

    def deliver_all(self, stores: dict[str, Store]) -> None:
        """Deliver what is held until nothing is left; the disk is well."""
        self.keep()
        moved = True
        while moved:
            moved = False
            for held, sink in self._places():
                while self.form(held, sink):
                    moved = True
                while held.batches[sink]:
                    assert self.deliver(held, sink, 0, stores[sink], noted=True)
                    moved = True

    def _places(self) -> Iterator[tuple[Held, str]]:
        return ((held, sink) for held in self.logs for sink in SINKS)


def new_frame(
    of: list[Record], shares: list[Share], *, tenant: str, id_base: int, arrived: FakeClock
) -> Frame:
    """A frame that has just arrived."""
    return Frame(
        type="log",
        tenant=tenant,
        request_id="r",
        traceparent="",
        received_us=arrived.time_us(),
        arrived_s=arrived.monotonic(),
        id_base=id_base,
        count=len(of),
        payload=encode_records(of),
        shares=tuple(shares),
        receipt=Receipt(
            count=len(of),
            owed=sum(one.required for one in shares),
            request_flush=lambda receipt: None,
        ),
    )


def some_records(severities: list[int], *, prefix: str, nbytes: int = 0) -> list[Record]:
    payload = b'"' + b"x" * nbytes + b'"'
    return [
        record(f"{prefix}/{index}", severity=severity, payload=payload)
        for index, severity in enumerate(severities)
    ]
