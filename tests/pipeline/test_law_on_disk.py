"""What has to be on the disk before what, with the shipped workers: manifest, write, end, proofs.

The recovery model delivers by itself; here the engine does, on a disk that fails.
"""

from __future__ import annotations

import dataclasses
import errno
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.backlog import Backlog
from pipeline.delivery.breaker import BreakerSettings
from pipeline.errors import PartialFailure, PermanentError, RetryableError
from pipeline.log.log import Log
from pipeline.record import Batch
from pipeline.runtime.clock import FakeClock
from pipeline.settings import PipelineSettings
from pipeline.source import Source
from tests.pipeline.rig import imbalances, stats_of
from tests.pipeline.stand import Stand
from tests.pipeline.support import PATIENCE_S, ScriptedSink, records, spec
from tests.pipeline.test_log_files import Lives


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(tmp_path / "wal")
    yield stand
    stand.end()


def row_of(engine: Any, sink: str = "a") -> dict[str, Any]:
    assert imbalances(engine) == {}
    return next(row for row in stats_of(engine)["ledger"] if row["sink"] == sink)


def extents(batch: Batch) -> tuple[Any, ...]:
    return tuple((part.frame.position, part.start, part.count) for part in batch.parts)


class TestTheManifestComesFirst:
    def test_each_batch_is_synced_before_it_is_sent_its_halves_too(self, stand: Stand) -> None:
        sent: list[int] = []
        unnoted: list[str] = []

        def look(batch: Batch) -> None:
            sent.append(batch.number)
            after = stand.batches_after_a_power_cut(engine)
            if after.get(batch.number) != ("a", extents(batch)):
                unnoted.append(f"{batch.batch_id}: {after}")
            if len(sent) == 2:
                raise PermanentError("split me")
            if len(sent) == 4:
                raise RetryableError("down for a moment")

        sink = ScriptedSink(always=look)
        clock = FakeClock()
        engine = stand.engine(spec(sink, max_records=4, max_wait_s=0.0), clock=clock)
        offered = records(12)
        engine.offer(type="log", tenant="t", records=offered, durable=True)
        stand.signals.wait_for(lambda s: len(s.retries) == 1, timeout_s=PATIENCE_S)
        clock.await_waiting(1)
        clock.advance(2.0)
        sink.await_stored(12)
        assert unnoted == []
        assert len(sent) >= 6
        assert sink.stored == Counter(one.message for one in offered)

    def test_a_batch_whose_manifest_cannot_be_written_waits_and_is_not_sent(
        self, stand: Stand, caplog: pytest.LogCaptureFixture
    ) -> None:
        sink, clock = ScriptedSink(), FakeClock()
        engine = stand.engine(spec(sink, max_wait_s=0.0, paused=True), clock=clock)
        engine.offer(type="log", tenant="t", records=records(3), durable=True)
        stand.disk.fail("write", errno.EIO)
        engine.configure([spec(sink, max_wait_s=0.0)])
        stand.signals.wait_for(lambda s: len(s.closed) == 1, timeout_s=PATIENCE_S)
        clock.await_waiting(1)
        assert "waits, as the log's journal cannot be written" in caplog.text
        assert sink.opened == 0
        assert row_of(engine)["in_flight"] == 3
        stand.disk.heal()
        clock.advance(2.0)
        sink.await_stored(3)
        assert [one.attempt for one in stand.signals.attempts] == [1], "it was no attempt"

    def test_an_end_that_cannot_be_written_is_told_and_stands(
        self, stand: Stand, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The record is stored; a crash now would have it sent again, and its proof tell."""
        sink = ScriptedSink(lambda batch: stand.disk.fail("write", errno.EIO))
        engine = stand.engine(spec(sink, max_wait_s=0.0), clock=FakeClock())
        receipt = engine.offer(type="log", tenant="t", records=records(3), durable=True)
        assert receipt.wait(PATIENCE_S)
        assert "its journal cannot be written" in caplog.text
        assert row_of(engine)["stored"] == 3
        stand.disk.heal()
        assert engine.stop(PATIENCE_S)
        assert not stand.directory(engine).exists()


class TestProofs:
    def test_are_let_go_of_only_after_the_checkpoint_without_their_batches(
        self, tmp_path: Path
    ) -> None:
        lives = Lives(tmp_path)
        lives.offer(*[0] * 8, sinks=("all",))
        for _ in range(2):
            lives.form()
            lives.deliver()
        before = dict(lives.life.log.settled_below)
        lives.disk.fail("sync", errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            lives.life.log.checkpoint()
        assert lives.life.log.settled_below == before
        lives.disk.heal()
        during: list[dict[str, int]] = []
        lives.disk.before = lambda what, path: during.append(dict(lives.life.log.settled_below))
        lives.life.log.checkpoint()
        assert all(one == before for one in during), "told before it is on the disk"
        assert lives.life.log.settled_below["all"] == 3
        lives.offer(0, sinks=("all",))
        lives.form()
        (batch,) = lives.life.own.batches["all"]
        assert batch.proofs_below == 3

    def test_a_sink_hears_of_logs_that_are_finished_and_may_fail_at_it(
        self, stand: Stand, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Forgetful(ScriptedSink):
            def __init__(self) -> None:
                super().__init__()
                self.forgotten: list[str] = []

            def forget(self, log_id: str) -> None:
                with self._changed:
                    self.forgotten.append(log_id)
                    self._changed.notify_all()
                raise RuntimeError("not now")

        sink = Forgetful()
        engine = stand.engine(spec(sink, max_wait_s=0.0))
        engine.forget("a", "log-of-old")
        engine.forget("nobody", "log-of-old")
        engine.offer(type="log", tenant="t", records=records(1), durable=True)
        sink.wait_for(lambda: sink.forgotten == ["log-of-old"])
        engine.offer(type="log", tenant="t", records=records(1), durable=True)
        sink.await_stored(2)
        assert engine.stop(PATIENCE_S)
        assert sink.forgotten == ["log-of-old"]
        assert "keeps what it need not of the finished log log-of-old" in caplog.text


class TestFilesThatWereCutOff:
    def test_keep_their_ends_until_they_are_deleted(self, tmp_path: Path) -> None:
        """A refused frame behind the end would come back otherwise, after a power cut."""
        lives = Lives(tmp_path)
        lives.offer(0, sinks=("all",))
        lives.disk.fail("sync", errno.EIO, times=1)
        with pytest.raises(Exception, match="cannot be written"):
            lives.offer(0, sinks=("all",))
        lives.form()
        lives.deliver()
        files = lives.life.log.files
        assert files is not None
        (number,) = files.segments.ends
        ends = dict(files.segments.ends)
        lives.disk.fail("write", errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            files.checkpoint()
        assert files.segments.ends == ends
        assert number in files.segments.numbers
        lives.disk.heal()
        files.checkpoint()
        assert files.segments.ends == {}
        assert number not in files.segments.numbers


class TestReading:
    """A sink that lags is read to from the files, by its workers."""

    def lagging(self, stand: Stand, sink: ScriptedSink, clock: FakeClock) -> tuple[Any, int]:
        """An engine whose memory has let go of most of what it holds."""
        count = 1200
        engine = stand.engine(
            spec(sink, paused=True), clock=clock, cache_bytes=0, start=False, segment_bytes=1 << 20
        )
        for _ in range(count):
            engine.offer(type="log", tenant="t", records=records(1), durable=True)
        assert engine.journal.cursor("a").behind is not None
        engine.start()
        return engine, count

    @pytest.mark.parametrize("how", ["disk", "bug"])
    def test_files_that_cannot_be_read_are_tried_again(
        self,
        stand: Stand,
        how: str,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        sink, clock = ScriptedSink(), FakeClock()
        engine, count = self.lagging(stand, sink, clock)
        failed = threading.Event()
        fill = engine.journal.fill

        def fails_once(*args: Any) -> Any:
            if not failed.is_set():
                failed.set()
                if how == "bug":
                    raise RuntimeError("nobody thought of this")
                stand.disk.fail("read", errno.EIO, times=1)
            return fill(*args)

        monkeypatch.setattr(engine.journal, "fill", fails_once)
        engine.configure([spec(sink, max_wait_s=0.0)])
        assert failed.wait(PATIENCE_S)
        clock.await_waiting(1)
        assert "the log's files cannot be read" in caplog.text
        assert sink.stored.total() == 0
        clock.advance(2.0)
        sink.await_stored(count)
        assert max(sink.stored.values()) == 1
        assert imbalances(engine) == {}

    def test_what_is_spoilt_is_dropped_as_corrupt_and_told(
        self, stand: Stand, caplog: pytest.LogCaptureFixture
    ) -> None:
        sink, clock = ScriptedSink(), FakeClock()
        engine, count = self.lagging(stand, sink, clock)
        (path, *_) = [p for p in stand.disk.paths() if p.suffix == ".seg"]
        data = stand.disk.content(path)
        at = data.index(b"m-", 3000)
        stand.disk.damage(path, at, b"#")
        engine.configure([spec(sink, max_wait_s=0.0)])
        sink.await_stored(count - 1)
        assert engine.flush(PATIENCE_S)
        assert row_of(engine)["dropped"] == {"corrupt": 1}
        assert "1 records of log" in caplog.text
        assert "are spoilt in its files, and dropped (corrupt)" in caplog.text

    def test_a_batch_of_another_life_that_is_spoilt_since_ends_as_corrupt(
        self, stand: Stand
    ) -> None:
        """One whole batch, and a record of another."""
        first = stand.engine(
            spec(ScriptedSink(always=RetryableError("down")), max_records=3, max_wait_s=0.0)
        )
        kept = records(1)
        for of in (records(3), kept, records(2)):
            first.offer(type="log", tenant="t", records=of, durable=True)
        stand.signals.wait_for(
            lambda s: {one.number for one in s.retries} >= {1, 2}, timeout_s=PATIENCE_S
        )
        assert not first.stop(0.2)
        sink = ScriptedSink()
        second = stand.engine(spec(sink, max_wait_s=0.0), start=False)
        assert second.adoption is not None
        assert second.adoption.look() == 1
        path = next(
            p
            for p in stand.disk.paths()
            if p.parent == stand.directory(first) and b"m-" in stand.disk.content(p)
        )
        data = stand.disk.content(path)
        frames = [i for i in range(len(data)) if data.startswith(b"CLfr", i)]
        assert len(frames) == 3
        for start in (frames[0], frames[2]):
            stand.disk.damage(path, data.index(b"m-", start), b"#")
        second.start()
        sink.await_stored(1)
        assert sink.stored == Counter([kept[0].message])
        assert second.stop(PATIENCE_S)
        (row,) = stats_of(second)["pipelines"]
        assert row["dropped"] == {"corrupt": 5}
        assert sink.stored.total() == 1
        assert not stand.directory(first).exists()


class TestLetters:
    class Box:
        """Cannot keep anything at first."""

        def __init__(self, fails: int) -> None:
            self.fails = fails
            self.puts = threading.Semaphore(0)
            self.letters: list[Any] = []

        def put(self, letters: Any) -> None:
            self.puts.release()
            if self.fails:
                self.fails -= 1
                raise ConnectionError("the control database is away")
            self.letters += letters

    def test_that_cannot_be_kept_hold_their_batch_which_is_not_written_again(
        self, stand: Stand, caplog: pytest.LogCaptureFixture
    ) -> None:
        box = self.Box(fails=2)
        sink = ScriptedSink(PartialFailure({1: "too long"}))
        clock = FakeClock()
        engine = stand.engine(
            dataclasses.replace(spec(sink, max_wait_s=0.0), dead_letters=box), clock=clock
        )
        of = records(3)
        receipt = engine.offer(type="log", tenant="t", records=of, durable=True)
        for _ in range(2):
            assert box.puts.acquire(timeout=PATIENCE_S)
            clock.await_waiting(1)
            assert not receipt.done
            row = row_of(engine)
            assert (row["in_flight"], row["stored"], row["dead_lettered"]) == (3, 0, 0)
            assert stand.batches_after_a_power_cut(engine) != {}, "a crash would have it again"
            clock.advance(2.0)
        assert receipt.wait(PATIENCE_S)
        assert [one.message for one in box.letters] == [of[1].message]
        assert len(stand.signals.attempts) == 1
        row = row_of(engine)
        assert (row["in_flight"], row["stored"], row["dead_lettered"]) == (0, 2, 1)
        assert caplog.text.count("1 dead letters could not be kept") == 2

    def test_that_wait_while_the_breaker_opens_take_no_probe_away(self, stand: Stand) -> None:
        """What is left to do of such a batch says nothing of the sink."""
        box = self.Box(fails=1)
        sink = ScriptedSink(
            PartialFailure({0: "too long"}), RetryableError("down", retry_after_s=3.0)
        )
        clock = FakeClock()
        breaker = BreakerSettings(consecutive=1, open_s=5.0)
        engine = stand.engine(
            dataclasses.replace(
                spec(sink, max_wait_s=0.0, max_records=1, breaker=breaker), dead_letters=box
            ),
            clock=clock,
        )
        engine.offer(type="log", tenant="t", records=records(1), durable=True)
        assert box.puts.acquire(timeout=PATIENCE_S)
        clock.await_waiting(1)
        engine.offer(type="log", tenant="t", records=records(1), durable=True)
        stand.signals.wait_for(lambda s: bool(s.retries), timeout_s=PATIENCE_S)
        (pipeline,) = engine.pipelines
        assert pipeline.breaker.state == "open"
        clock.await_waiting(1)
        clock.advance(6.0)
        assert box.puts.acquire(timeout=PATIENCE_S)  # by the half-open breaker's only permit
        sink.await_stored(1)
        assert engine.flush(PATIENCE_S)
        row = row_of(engine)
        assert (row["stored"], row["dead_lettered"], row["in_flight"]) == (1, 1, 0)
        assert pipeline.breaker.state == "closed"
        assert len(stand.signals.attempts) == 3


class TestLogsOfOthers:
    def test_one_that_no_pipeline_took_is_delivered_once_its_sink_is_back(
        self, stand: Stand, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its sink is removed between the list of pipelines and the claim."""
        first = stand.engine(spec(ScriptedSink(), paused=True))
        offered = records(5)
        first.offer(type="log", tenant="t", records=offered, durable=True)
        assert not first.stop(0.2)
        sink = ScriptedSink()
        second = stand.engine(spec(sink, max_wait_s=0.0), start=False)
        second._started = True
        claim = second._claim

        def late(pipeline: Any, adopted: Any) -> None:
            monkeypatch.setattr(second, "_claim", claim)
            second.configure([])
            assert pipeline.ended
            claim(pipeline, adopted)

        monkeypatch.setattr(second, "_claim", late)
        assert second.adoption is not None
        assert second.adoption.look() == 1
        assert second.unclaimed_sinks() == {"a"}
        assert imbalances(second) == {}
        second.configure([spec(sink, max_wait_s=0.0)])
        assert second.unclaimed_sinks() == set()
        sink.await_stored(5)
        assert sink.stored == Counter(one.message for one in offered)

    def test_a_batch_is_known_by_its_log_while_other_logs_are_let_go_of(self, stand: Stand) -> None:
        """Workers look without the lock: a list that is changed meanwhile would skip an entry."""
        journal = Log(log_id="own")
        own = Source(log=journal, sink="a", settings=PipelineSettings())
        backlog = Backlog(own, PipelineSettings())

        class Finishing(Log):
            """A log that is let go of at the moment when it is looked at."""

            armed = False

            def __getattribute__(self, name: str) -> Any:
                if name == "log_id" and Finishing.armed:
                    Finishing.armed = False
                    backlog.remove(other)
                return super().__getattribute__(name)

        other = Source(log=Finishing(log_id="other"), sink="a", settings=PipelineSettings())
        backlog.add(other)
        backlog._sources = [other, own]
        Finishing.armed = True
        assert backlog.source_of(batch_of(journal)) is own
        assert backlog.adopted == []


def batch_of(journal: Log) -> Batch:
    return Batch(number=1, log_id=journal.log_id, sink="a", reason="size", parts=[])
