"""Log and recovery against a model: any order of events, a crash at any operation of the disk.

What was acknowledged reaches each sink once, whatever is crashed, cut off and crashed again while
it is being recovered; nothing that was never offered appears; the ledger balances at every step.
"""

from __future__ import annotations

import errno
import logging
import shutil
import tempfile
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from pipeline.errors import LogUnavailable
from pipeline.ids import id_run
from pipeline.log import journal as journal_module
from pipeline.log import segment as segment_module
from pipeline.record import ERROR, INFO
from pipeline.runtime.clock import FakeClock
from pipeline.settings import PipelineSettings
from tests.pipeline.faultydisk import Crash, FaultyDisk
from tests.pipeline.lives import LEAST, SINKS, Held, Life, Store, some_records

FAULTS = {
    "full": ("create", errno.ENOSPC),
    "write": ("write", errno.EIO),
    "sync": ("sync", errno.EIO),
    "truncate": ("truncate", errno.EIO),
    "rename": ("rename", errno.EIO),
}
PLACES = {
    (journal_module, "JOURNAL_BYTES"): 2048,
    (journal_module, "CHECKPOINT_BYTES"): 4096,
    (segment_module, "FRAMES_PER_SEGMENT"): 3,
}
SINK = st.sampled_from(SINKS)


class RecoveryMachine(RuleBasedStateMachine):
    """One process after the other on one disk; files of a page, so that a short run fills many."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable()
        self._usual = {place: getattr(*place) for place in PLACES}
        for place, value in PLACES.items():
            setattr(*place, value)
        self.root = Path(tempfile.mkdtemp(prefix="log-model-"))
        self.disk = FaultyDisk()
        self.clock = FakeClock()
        self.stores = {sink: Store() for sink in SINKS}
        self.ids = 1
        self.lives = 0
        self.unwritten: list[tuple[dict[str, set[int]], object]] = []
        # What must be stored, what may be, by sink and id; and what each record said.
        self.owed: dict[str, set[int]] = {sink: set() for sink in SINKS}
        self.possible: dict[str, set[int]] = {sink: set() for sink in SINKS}
        self.refused: set[int] = set()
        self.let_go: set[int] = set()  # by the optional sink
        self.said: dict[int, str] = {}
        self.life: Life

    def teardown(self) -> None:
        try:
            if hasattr(self, "life"):
                self.end()
        finally:
            logging.disable(logging.NOTSET)
            for place, value in self._usual.items():
                setattr(*place, value)
            shutil.rmtree(self.root)

    @initialize(
        cache_bytes=st.sampled_from([0, 2000, 1 << 20]),
        max_records=st.integers(1, 8),
        max_bytes=st.sampled_from([300, 1 << 20]),
        partition_by=st.sampled_from(["", "tenant"]),
    )
    def begin(self, cache_bytes: int, max_records: int, max_bytes: int, partition_by: str) -> None:
        self.cache_bytes = cache_bytes
        self.partition_by = partition_by
        self._live(max_records, max_bytes)

    def _live(self, max_records: int, max_bytes: int) -> None:
        """A new process."""
        self.lives += 1
        self.limits = (max_records, max_bytes)
        self.life = Life(
            name=f"{self.lives:032x}",
            root=self.root,
            disk=self.disk,
            clock=self.clock,
            settings=PipelineSettings(
                max_records=max_records, max_bytes=max_bytes, partition_by=self.partition_by
            ),
            cache_bytes=self.cache_bytes,
        )
        self.life.adopt()

    # --- taking in -------------------------------------------------------------------------

    @rule(
        severities=st.lists(st.sampled_from([INFO, ERROR]), min_size=1, max_size=5),
        sinks=st.sets(SINK, min_size=1),
        nbytes=st.sampled_from([0, 100, 700, 2500]),
        tenant=st.sampled_from(["t", "u", "v"]),
        durable=st.sampled_from([True, True, False]),
    )
    def offer(
        self, severities: list[int], sinks: set[str], nbytes: int, tenant: str, durable: bool
    ) -> None:
        of = some_records(severities, prefix=f"{self.ids}", nbytes=nbytes)
        frame = self.life.frame(of, sinks, tenant=tenant, id_base=self.ids)
        if not frame.shares:
            return
        ids = list(id_run(self.ids, len(of)))
        self.ids = ids[-1] + 1
        self.said |= {i: one.message for i, one in zip(ids, of, strict=True)}
        wanted = {
            share.sink: {i for i, r in zip(ids, of, strict=True) if r.severity >= LEAST[share.sink]}
            for share in frame.shares
        }
        for sink, mine in wanted.items():
            self.possible[sink] |= mine
        try:
            self.life.log.append(frame, durable=durable)
        except LogUnavailable:
            if not self.life.log.files.journal.waiting:  # type: ignore[union-attr]
                self.refused |= set(ids)
        except Crash:
            self._crashed()
        else:
            if durable:
                self._acknowledged(wanted)
            else:
                self.unwritten.append((wanted, frame.receipt))

    def _acknowledged(self, wanted: dict[str, set[int]]) -> None:
        for sink, mine in wanted.items():
            self.owed[sink] |= mine

    @rule()
    def keep(self) -> None:
        try:
            self.life.keep()
        except OSError:
            pass
        except Crash:
            self._crashed()
            return
        self._note_written()

    def _note_written(self) -> None:
        """What was acknowledged from memory is owed from when it says that it is in the log."""
        for wanted, receipt in self.unwritten:
            if receipt.logged == "wal":  # type: ignore[attr-defined]
                self._acknowledged(wanted)
        self.unwritten = [one for one in self.unwritten if one[1].logged != "wal"]  # type: ignore[attr-defined]

    # --- delivering ------------------------------------------------------------------------

    def _held(self, index: int) -> Held:
        return self.life.logs[index % len(self.life.logs)]

    @rule(index=st.integers(0, 3), sink=SINK, times=st.sampled_from([1, 2, 5]))
    def form(self, index: int, sink: str, times: int) -> None:
        try:
            for _ in range(times):
                self.life.form(self._held(index), sink)
        except Crash:
            self._crashed()

    @rule(index=st.integers(0, 3), sink=SINK, which=st.integers(0, 9), noted=st.booleans())
    def deliver(self, index: int, sink: str, which: int, noted: bool) -> None:
        held = self._held(index)
        if not held.batches[sink]:
            return
        which %= len(held.batches[sink])
        try:
            self.life.deliver(held, sink, which, self.stores[sink], noted=noted)
        except Crash:
            self._crashed()

    @rule(sink=SINK, noted=st.booleans(), leave=st.integers(0, 2))
    def work(self, sink: str, noted: bool, leave: int) -> None:
        """A worker delivers what is there for a sink, but for the last batches."""
        try:
            for held in self.life.logs:
                for _ in range(6):
                    self.life.form(held, sink)
                while len(held.batches[sink]) > leave:
                    if not self.life.deliver(held, sink, 0, self.stores[sink], noted=noted):
                        break
        except Crash:
            self._crashed()

    @rule(index=st.integers(0, 3), sink=SINK, which=st.integers(0, 9))
    def split(self, index: int, sink: str, which: int) -> None:
        held = self._held(index)
        if held.batches[sink]:
            self.life.split(held, sink, which % len(held.batches[sink]))

    @rule(index=st.integers(0, 3))
    def drop_oldest(self, index: int) -> None:
        gone = self.life.drop_oldest(self._held(index))
        self.let_go |= set(gone)

    @rule(index=st.integers(0, 3))
    def checkpoint(self, index: int) -> None:
        try:
            self._held(index).log.checkpoint()
        except OSError:
            pass
        except Crash:
            self._crashed()

    @rule()
    def finish(self) -> None:
        try:
            self._finish()
        except Crash:
            self._crashed()

    def _finish(self) -> None:
        for held in self.life.finish():
            self._check_books(held)

    # --- faults ----------------------------------------------------------------------------

    @rule(fault=st.sampled_from(sorted(FAULTS)), times=st.sampled_from([1, 1, 2, 100]))
    def fail(self, fault: str, times: int) -> None:
        what, error = FAULTS[fault]
        self.disk.fail(what, error, times=times)

    @rule()
    def heal(self) -> None:
        self.disk.heal()
        self.clock.advance(2.0)

    @rule(points=st.integers(0, 12))
    def crash_soon(self, points: int) -> None:
        self.disk.crash_after(points)

    @rule(
        power=st.booleans(),
        seed=st.integers(0, 1 << 16),
        max_records=st.integers(1, 8),
        again=st.lists(st.integers(0, 40), max_size=2),
    )
    def crash(self, power: bool, seed: int, max_records: int, again: list[int]) -> None:
        self._crash(power, seed, max_records, again)

    @rule(max_records=st.integers(1, 8))
    def stop_and_start(self, max_records: int) -> None:
        """An orderly stop, with whatever is left."""
        life = self.life
        try:
            self.life.keep()
            self._note_written()
            life.drop_unlogged()
            for held in [*life.adopted, life.own]:
                settled = held.log.settled
                held.log.close()
                if settled:
                    self._check_books(held)
        except Crash:
            self._crashed()
            return
        except OSError:
            pass
        life.let_go()
        self.unwritten.clear()
        self._start_again(max_records, [])

    def _crashed(self) -> None:
        """A crash point was reached in the middle of something."""
        seed = self.disk.points
        self._crash(seed % 2 == 0, seed, seed % 7 + 1, [])

    def _crash(self, power: bool, seed: int, max_records: int, again: list[int]) -> None:
        self._note_written()
        self.life.let_go()
        # Seeds are mostly small, and chance is to differ from crash to crash.
        self.disk.crash(Random(seed * 7919 + self.disk.points), power=power)
        self.unwritten.clear()
        self._start_again(max_records, again)

    def _start_again(self, max_records: int, again: list[int]) -> None:
        """The next process, which crashes too while it adopts, as often as `again` says."""
        for points in again:
            self.disk.crash_after(points)
            try:
                self._live(max_records, self.limits[1])
                break
            except Crash:
                self._let_all_go()
                self.disk.crash(Random(points), power=points % 2 == 0)
        else:
            self.disk.crash_at = None
            self.disk.heal()
            self._live(max_records, self.limits[1])

    def _let_all_go(self) -> None:
        if self.life.name == f"{self.lives:032x}":
            self.life.let_go()

    # --- what must hold --------------------------------------------------------------------

    def _check_books(self, held: Held) -> None:
        """The ledger of a log that is delivered: each record that was stored ended as stored."""
        assert held.imbalances() == {}
        tallies = held.log.ledger.tallies()
        for sink in SINKS:
            stored = sum(t.stored + t.already_stored for (s, _), t in tallies.items() if s == sink)
            store = self.stores[sink]
            missing = store.by_log[held.log.log_id] - stored
            assert 0 <= missing <= len(store.shrunk | store.unlogged), (sink, tallies)

    @invariant()
    def the_ledger_balances(self) -> None:
        if hasattr(self, "life"):
            for held in self.life.logs:
                assert held.imbalances() == {}, held.log.log_id

    @invariant()
    def nothing_is_stored_twice_nor_made_up(self) -> None:
        for sink, store in self.stores.items():
            assert set(store.stored) <= self.possible[sink]
            assert max(store.stored.values(), default=1) == 1
            assert not (set(store.stored) & self.refused)
            assert not (store.shrunk & self.owed[sink])
            for record_id, message in store.messages.items():
                assert self.said[record_id] == message

    def end(self) -> None:
        """Everything heals, and what is left is delivered by one process more."""
        self.disk.heal()
        self.disk.crash_at = None
        self.clock.advance(2.0)
        self.life.keep()
        self._note_written()
        self.life.let_go()
        self.disk.crash(Random(0), power=False)
        self._live(*self.limits)
        self.life.deliver_all(self.stores)
        self.the_ledger_balances()
        self.nothing_is_stored_twice_nor_made_up()
        for sink, store in self.stores.items():
            lost = self.owed[sink] - set(store.stored)
            if sink == "optional":
                lost -= self.let_go
            assert not lost, f"lost for {sink}"
        self._finish()
        assert self.life.adopted == []
        self.life.own.log.close()
        left = [path.name for path in self.root.iterdir() if path.name != "quarantine"]
        assert left == []


TestRecovery = RecoveryMachine.TestCase
TestRecovery.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
