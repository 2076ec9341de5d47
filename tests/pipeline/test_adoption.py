"""Engines with files, on the real disk: one is abandoned, the next one adopts its log."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.delivery.retry import RetryPolicy
from pipeline.engine import Engine
from pipeline.errors import LogUnavailable, PermanentError, RetryableError
from pipeline.ids import RecordIds
from pipeline.intake.router import Route
from pipeline.log.settings import LogSettings
from pipeline.record import ERROR, Batch, Record
from pipeline.runtime.clock import SystemClock
from pipeline.runtime.signals import Signals
from pipeline.sink import Written
from pipeline.spec import PipelineSpec
from tests.pipeline.rig import stats_of
from tests.pipeline.support import PATIENCE_S, HeldSink, ScriptedSink, records, spec


class Table(ScriptedSink):
    """A sink that keeps proofs, and outlives the engines that write to it."""

    def __init__(self, *script: Any, always: Any = None) -> None:
        super().__init__(*script, always=always)
        self.proofs: dict[tuple[str, int], list[int]] = {}

    def write(self, batch: Batch) -> Written | None:
        ids = [one.id for one in batch.records]
        with self._changed:
            known = self.proofs.get((batch.log_id, batch.number))
        if known is not None:
            assert known == ids
            return Written(stored=0, already_stored=len(ids))
        answer = super().write(batch)
        with self._changed:
            self.proofs[batch.log_id, batch.number] = ids
        return answer


class Adopters(Signals):
    """Hears of adopted logs too."""

    def __init__(self) -> None:
        super().__init__()
        self.adopted: list[tuple[str, int]] = []
        self.finished: list[str] = []
        self.rounds = 0

    def look_again(self) -> None:
        """Logs may have been removed."""
        with self._changed:
            self.rounds += 1
            self._changed.notify_all()

    def log_adopted(self, log_id: str, records: int) -> None:
        self._add(self.adopted, (log_id, records))

    def log_finished(self, log_id: str, figures: Any) -> None:
        self._add(self.finished, log_id)


class Service:
    """Engines one after the other in one directory, each ended after the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.engines: list[Engine] = []
        self.signals: list[Adopters] = []

    def engine(self, *specs: PipelineSpec, start: bool = True, **options: Any) -> Engine:
        number = len(self.engines) + 1
        options.setdefault("segment_bytes", 4096)
        engine = Engine(
            log_id=f"{number:032x}",
            ids=RecordIds(node=number),
            log_settings=LogSettings(directory=self.root, **options),
        )
        signals = Adopters()
        engine.observe(signals)
        self.engines.append(engine)
        engine._watchdog._every_s = 0.02  # it lets go of what is delivered
        adoption = engine.adoption
        assert adoption is not None
        finish = adoption.finish

        def finish_and_tell() -> None:
            finish()
            signals.look_again()

        setattr(adoption, "finish", finish_and_tell)  # noqa: B010
        self.signals.append(signals)
        engine.configure(specs)
        if start:
            engine.start()
        return engine

    def abandon(self, engine: Engine) -> None:
        """What is left when a process is killed: its files, and no lock on them."""
        adoption = engine.adoption
        assert adoption is not None
        engine._stopped = True
        engine._watchdog.stop(PATIENCE_S)
        adoption.stop(PATIENCE_S)
        engine._keeper.stop(PATIENCE_S)
        for one in (*engine.pipelines, *engine.retired):
            one.halt()
        for one in (*engine.pipelines, *engine.retired):
            for worker in one.workers:
                worker.thread.join(PATIENCE_S)
                assert not worker.thread.is_alive()
        engine.abandon()

    def end(self) -> None:
        for engine in self.engines:
            if not engine._stopped:
                engine.stop(0.2)

    def await_finished(self, of: Engine, engine: Engine) -> None:
        """Until `engine` has delivered and removed the log of `of`."""
        signals = self.signals[self.engines.index(engine)]
        path = self.root / of.log_id
        signals.wait_for(lambda s: not path.exists(), timeout_s=PATIENCE_S)
        assert signals.finished.count(of.log_id) == 1


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "wal")
    yield service
    service.end()


def messages(of: Sequence[Record]) -> Counter[str]:
    return Counter(one.message for one in of)


def adopted_rows(engine: Engine) -> list[dict[str, Any]]:
    return [row for one in stats_of(engine)["log"]["adopted"] for row in one["ledger"]]


@pytest.mark.parametrize(
    "limits", [{"max_records": 1}, {"max_records": 7}, {"max_records": 5000}, {"max_bytes": 200}]
)
def test_what_a_dead_process_took_in_is_delivered_once(
    service: Service, limits: dict[str, Any]
) -> None:
    """Batches under way come back unchanged, also one that was taken apart; the rest is new."""
    table, errors = Table(), Table(PermanentError("split me"), always=RetryableError("down"))
    first = service.engine(
        spec(table, key="all", max_records=10, max_wait_s=0.0),
        spec(
            errors,
            key="errors",
            max_records=8,
            max_wait_s=0.0,
            route=Route(min_severity=ERROR),
        ),
    )
    offered: list[Record] = []
    severe: list[Record] = []
    for number in range(20):
        mild, hard = records(3), records(2, severity=ERROR)
        offered += mild + hard
        severe += hard
        first.offer(type="log", tenant=f"t{number % 3}", records=mild + hard, durable=True)
    table.await_stored(60)
    service.signals[0].wait_for(lambda s: len(s.retries) >= 2, timeout_s=PATIENCE_S)
    service.abandon(first)
    formed = {
        number: extents
        for number, sink, extents in first.journal.manifest.items()
        if sink == "errors"
    }
    assert formed
    errors.heal()
    second = service.engine(
        spec(table, key="all", max_wait_s=0.0, **limits),
        spec(errors, key="errors", max_wait_s=0.0, route=Route(min_severity=ERROR), **limits),
        adopt_every_s=0.05,
    )
    service.await_finished(first, second)
    assert table.stored == messages(offered)
    assert errors.stored == messages(severe)
    again = {b.number: b for b in errors.batches if b.log_id == first.log_id}
    for number, extents in formed.items():
        assert again[number].count == sum(count for _, _, count in extents)
        assert again[number].reason == "replay"
    assert second.stop(PATIENCE_S)
    assert [path.name for path in service.root.iterdir()] == []


def test_order_within_a_tenant_outlives_a_crash(service: Service) -> None:
    """The batch that was under way goes before what its tenant sent after it, however it fails."""
    down = Table(always=RetryableError("down"))
    ordered: dict[str, Any] = {
        "max_records": 5,
        "max_wait_s": 0.0,
        "ordered": True,
        "max_workers": 3,
    }
    first = service.engine(spec(down, key="all", **ordered))
    offered = records(30)
    for start in range(0, 30, 5):
        first.offer(type="log", tenant="t", records=offered[start : start + 5], durable=True)
    service.signals[0].wait_for(lambda s: len(s.retries) >= 1, timeout_s=PATIENCE_S)
    service.abandon(first)
    failing_once = Table(RetryableError("once more"), RetryableError("and once more"))
    second = service.engine(
        spec(failing_once, key="all", retry=RetryPolicy(base_s=0.05, cap_s=0.05), **ordered),
        adopt_every_s=0.05,
    )
    service.await_finished(first, second)
    delivered = [one.message for batch in failing_once.batches for one in batch.records]
    assert delivered == [one.message for one in offered]


def test_the_ledger_of_an_adopted_log_balances_all_the_time(service: Service) -> None:
    first = service.engine(
        spec(ScriptedSink(always=RetryableError("down")), max_records=5, max_wait_s=0.0),
        spec(ScriptedSink(always=RetryableError("down")), key="o", required=False),
    )
    for number in range(30):
        first.offer(type="log", tenant=f"t{number % 2}", records=records(4), durable=True)
    service.abandon(first)
    held = HeldSink()
    second = service.engine(
        spec(held, max_records=3, max_wait_s=0.0, max_workers=3, min_workers=3),
        spec(ScriptedSink(), key="o", required=False, max_records=2, max_wait_s=0.0),
        adopt_every_s=0.05,
    )
    held.await_writes(1)
    rows = adopted_rows(second)
    assert rows
    stopping = threading.Event()
    wrong: list[dict[str, Any]] = []

    def watch() -> None:
        while not stopping.is_set():
            wrong.extend(row for row in adopted_rows(second) if row["imbalance"])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    held.let_go()
    service.await_finished(first, second)
    stopping.set()
    watcher.join(PATIENCE_S)
    assert wrong == []
    assert sum(held.stored.values()) == 120
    assert {row["sink"] for row in rows} == {"a", "o"}
    assert sum(row["accepted"] for row in rows) == 240


def test_a_sink_that_is_not_configured_yet_is_waited_for(service: Service) -> None:
    first = service.engine(spec(ScriptedSink(always=RetryableError("down")), key="later"))
    offered = records(6)
    first.offer(type="log", tenant="t", records=offered, durable=True)
    service.abandon(first)
    second = service.engine(spec(ScriptedSink(), key="other"), start=False)
    assert second.adoption is not None
    assert second.adoption.look() == 1
    assert second.unclaimed_sinks() == {"later"}
    (row,) = adopted_rows(second)
    assert (row["accepted"], row["in_flight"], row["imbalance"]) == (6, 6, 0)
    second.start()
    assert second.logs()[1].log_id == first.log_id
    table = Table()
    second.configure([spec(ScriptedSink(), key="other"), spec(table, key="later", max_wait_s=0.0)])
    assert second.unclaimed_sinks() == set()
    service.await_finished(first, second)
    assert table.stored == messages(offered)


def test_what_waits_for_a_sink_that_is_gone_can_be_discarded(service: Service) -> None:
    first = service.engine(spec(ScriptedSink(always=RetryableError("down")), key="gone"))
    for _ in range(8):
        first.offer(type="log", tenant="t", records=records(5), durable=True)
    service.signals[0].wait_for(lambda s: bool(s.retries), timeout_s=PATIENCE_S)
    service.abandon(first)
    second = service.engine(spec(ScriptedSink(), key="other"), adopt_every_s=0.05)
    service.signals[1].wait_for(lambda s: bool(service.signals[1].adopted), timeout_s=PATIENCE_S)
    assert service.signals[1].adopted == [(first.log_id, 40)]
    second.discard("gone")
    service.await_finished(first, second)
    assert sum(len(one.messages) for one in service.signals[1].dropped) == 40
    assert {one.reason for one in service.signals[1].dropped} == {"sink_removed"}


def test_keys_of_a_dead_process_are_told_and_hold_its_log_until_they_are_recorded(
    service: Service,
) -> None:
    first = service.engine(spec(Table(), max_wait_s=0.0))
    first.offer(type="log", tenant="t", records=records(1), durable=True, key="claim-1")
    first.offer(type="log", tenant="t", records=records(1), durable=True, key="claim-2")
    first.offer(type="log", tenant="t", records=records(1), durable=True)
    first.key_recorded("claim-2")
    assert first.flush(PATIENCE_S)
    service.abandon(first)
    told: list[tuple[str, frozenset[str]]] = []
    fails = [True]

    def hook(log_id: str, keys: frozenset[str]) -> None:
        if fails:
            fails.pop()
            raise RuntimeError("the database is away")
        told.append((log_id, keys))

    second = service.engine(spec(Table(), max_wait_s=0.0), start=False)
    assert second.adoption is not None
    second.on_adopted(hook)
    assert second.adoption.look() == 1
    second.adoption.finish()
    assert (service.root / first.log_id).exists()
    assert told == []
    assert second.adoption.look() == 0
    assert told == [(first.log_id, frozenset({"claim-1", "claim-2"}))]
    second.adoption.finish()
    assert not (service.root / first.log_id).exists()
    second.adoption.finish()
    assert told[1:] == []


def test_a_process_that_is_killed_while_it_adopts_loses_nothing(service: Service) -> None:
    table = Table(always=RetryableError("down"))
    offered: list[Record] = []
    for number in range(4):
        engine = service.engine(
            spec(table, max_records=3 + number, max_wait_s=0.0), adopt_every_s=0.05
        )
        some = records(10)
        offered += some
        engine.offer(type="log", tenant="t", records=some, durable=True)
        service.signals[number].wait_for(lambda s: bool(s.retries), timeout_s=PATIENCE_S)
        service.abandon(engine)
    table.heal()
    last = service.engine(spec(table, max_wait_s=0.0), adopt_every_s=0.05)
    table.await_stored(40)
    for engine in service.engines[:-1]:
        service.await_finished(engine, last)
    assert table.stored == messages(offered)


def test_a_stop_leaves_what_fails_to_the_next_process(service: Service) -> None:
    table = Table(always=RetryableError("down"))
    first = service.engine(spec(table, max_records=4, max_wait_s=0.0))
    offered = records(10)
    first.offer(type="log", tenant="t", records=offered, durable=True)
    assert not first.stop(2.0)
    assert not first.stop(0.0)
    assert stats_of(first)["pipelines"][0]["dropped"] == {}
    table.heal()
    second = service.engine(spec(table, max_wait_s=0.0), adopt_every_s=0.05)
    service.await_finished(first, second)
    assert table.stored == messages(offered)


def test_a_stop_between_two_batches_of_one_frame_loses_neither(service: Service) -> None:
    held = HeldSink()
    first = service.engine(spec(held, max_records=4, max_wait_s=0.0))
    offered = records(10)
    first.offer(type="log", tenant="t", records=offered, durable=True)
    held.await_writes(1)
    (pipeline,) = first.pipelines
    pipeline.halt()
    held.let_go()
    held.await_stored(4)
    assert not first.stop(1.0)
    table = Table()
    second = service.engine(spec(table, max_wait_s=0.0), adopt_every_s=0.05)
    service.await_finished(first, second)
    assert held.stored + table.stored == messages(offered)


def test_living_processes_are_left_alone(service: Service) -> None:
    sink = HeldSink()
    first = service.engine(spec(sink, max_wait_s=0.0))
    first.offer(type="log", tenant="t", records=records(2), durable=True)
    second = service.engine(spec(ScriptedSink()), start=False)
    assert second.adoption is not None
    assert second.adoption.look() == 0
    sink.let_go()
    assert first.stop(PATIENCE_S)


def test_a_log_that_cannot_be_read_is_told_and_waits(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    table = Table()
    first = service.engine(spec(table, paused=True))
    offered = records(3)
    first.offer(type="log", tenant="t", records=offered, durable=True)
    service.abandon(first)
    second = service.engine(spec(table, max_wait_s=0.0), start=False)
    adoption = second.adoption
    assert adoption is not None
    for error in (OSError(5, "a disk"), OSError(5, "a disk"), RuntimeError("nobody thought of")):

        def broken(*args: Any, error: Exception = error, **options: Any) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("pipeline.adoption.recover", broken)
            assert adoption.look() == 0
    assert caplog.text.count("a disk") == 1
    assert "nobody thought of" in stats_of(second)["log"]["unreadable"][first.log_id]
    second.start()
    service.await_finished(first, second)
    assert stats_of(second)["log"]["unreadable"] == {}
    assert table.stored == messages(offered)


def test_flush_waits_for_what_has_left_memory(service: Service) -> None:
    """A sink that lags is not done because nothing of its own is at hand."""
    held = HeldSink()
    engine = service.engine(spec(held, max_records=2, max_wait_s=0.0), cache_bytes=0)
    for _ in range(600):
        engine.offer(type="log", tenant="t", records=records(1), durable=False)
    assert engine.journal.files is not None
    assert engine.journal.files.writer is not None
    engine.journal.files.writer.flush()
    held.await_writes(1)
    held.let_go()
    assert engine.flush(PATIENCE_S)
    assert sum(held.stored.values()) == 600


def test_stats_tell_of_the_files(service: Service) -> None:
    engine = service.engine(spec(ScriptedSink(), paused=True))
    receipt = engine.offer(type="log", tenant="t", records=records(3), durable=True)
    assert receipt.logged == "wal"
    log = stats_of(engine)["log"]
    assert (log["state"], log["error"], log["fsync"]) == ("ok", "", "group")
    assert log["appended_frames"] == log["fsyncs"] == 1
    assert log["segments"] == 1
    assert log["left_records"] == 3
    assert log["adopted"] == []
    assert not engine.stop(0.2)
    with pytest.raises((LogUnavailable, Exception)):
        engine.offer(type="log", tenant="t", records=records(1), durable=True)


def test_an_engine_in_memory_adopts_nothing() -> None:
    engine = Engine(log_id="log", ids=RecordIds(node=1), clock=SystemClock())
    assert engine.adoption is None
    engine.on_adopted(lambda log_id, keys: None)
    engine.key_recorded("x")
    assert engine.unclaimed_sinks() == set()
    assert engine.stop(0.0)


def test_flush_says_no_of_a_sink_that_lags_and_delivers_nothing(service: Service) -> None:
    engine = service.engine(spec(ScriptedSink(), paused=True), cache_bytes=0)
    for _ in range(600):
        engine.offer(type="log", tenant="t", records=records(1), durable=True)
    assert engine.journal.cursor("a").behind is not None
    assert not engine.flush(0.1)
