"""Records that end without being stored: for want of room in memory or files, or at a stop."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.drops import COMPLAIN_EVERY_S
from pipeline.engine import Engine
from pipeline.errors import LogUnavailable, RetryableError
from pipeline.runtime.clock import FakeClock
from tests.pipeline.rig import Rig, ledger_row
from tests.pipeline.stand import Stand
from tests.pipeline.support import PATIENCE_S, ScriptedSink, record, records, spec

BULK = b'"' + b"x" * 900 + b'"'
SMALL: dict[str, Any] = {"capacity_records": 10, "max_records": 10}


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(tmp_path / "wal")
    yield stand
    stand.end()


class TestAnOptionalSinkThatIsFull:
    def test_says_now_and_then_how_much_it_drops(
        self, rig: Rig, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Each drop told by itself would be a flood; untold, nobody would know."""
        rig.start(spec(ScriptedSink(), required=False, paused=True, **SMALL))
        for _ in range(6):
            rig.offer(records(5))
        told = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
        assert told == ["sink a is optional and full: its 5 oldest records were dropped (backlog)"]
        rig.clock.advance(COMPLAIN_EVERY_S)
        rig.offer(records(5))
        assert "its 20 oldest records were dropped" in caplog.messages[-1]
        assert rig.row()["dropped"] == {"backlog": 25}

    def test_says_so_too_of_what_never_fits(
        self, rig: Rig, caplog: pytest.LogCaptureFixture
    ) -> None:
        rig.start(spec(ScriptedSink(), required=False, paused=True, **SMALL))
        rig.offer(records(30))
        assert "its 30 oldest records were dropped" in caplog.text
        assert rig.row()["dropped"] == {"backlog": 30}


class TestALogThatIsNearlyFull:
    """A required sink and an optional one, neither of which delivers; the files fill up."""

    @staticmethod
    def crowded(
        stand: Stand, cache_bytes: int, clock: FakeClock
    ) -> tuple[Engine, ScriptedSink, ScriptedSink, int]:
        """An engine that is not started yet, and how many records its first file holds."""
        required, optional = ScriptedSink(), ScriptedSink()
        engine = stand.engine(
            spec(required, key="required", max_wait_s=0.0),
            spec(optional, key="optional", required=False, max_wait_s=0.0),
            segment_bytes=4096,
            max_bytes=8 * 4096,
            cache_bytes=cache_bytes,
            clock=clock,
            start=False,
        )
        files = engine.journal.files
        assert files is not None
        first: int | None = None
        for offered in range(40):
            if files.crowded() is not None:
                break
            of = [record(f"m{offered}", payload=BULK)]
            engine.offer(type="log", tenant="t", records=of, durable=True)
            if first is None and len(files.segments) == 2:
                first = offered
        assert files.crowded() == 1
        assert first is not None
        return engine, required, optional, first

    @pytest.fixture(autouse=True)
    def small_segments(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pipeline.log.segment.FRAMES_PER_SEGMENT", 3)

    @pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
    def test_has_the_optional_sink_let_go_of_its_first_file(
        self, stand: Stand, cache_bytes: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        engine, required, optional, first = self.crowded(stand, cache_bytes, FakeClock())
        engine._keeper.turn()
        assert ledger_row(engine, "optional", "t")["dropped"] == {"backlog": first}
        assert ledger_row(engine, "required", "t")["dropped"] == {}
        assert f"its {first} oldest records are dropped (backlog)" in caplog.text
        lost = [m for one in stand.signals.dropped for m in one.messages]
        assert lost == [f"m{number}" for number in range(first)]
        engine.start()
        offered = ledger_row(engine, "required", "t")["accepted"]
        required.await_stored(offered)
        optional.await_stored(offered - first)
        assert engine.stop(PATIENCE_S)
        assert optional.stored.total() == offered - first
        assert required.stored == optional.stored + Counter(lost)

    def test_drops_nothing_that_it_cannot_read(
        self, stand: Stand, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = FakeClock()
        engine, _, optional, first = self.crowded(stand, 0, clock)
        stand.disk.fail("read", errno.EIO)
        engine._keeper.turn()
        assert "the log's files cannot be read" in caplog.text
        assert ledger_row(engine, "optional", "t")["dropped"] == {}
        assert ledger_row(engine, "optional", "t")["in_flight"] > first
        stand.disk.heal()
        clock.advance(2.0)
        engine.start()
        offered = ledger_row(engine, "required", "t")["accepted"]
        optional.await_stored(offered - first)


class TestAStopWithRecordsInMemoryAlone:
    """They were acknowledged from memory, and the log had no room when they were to be written."""

    @staticmethod
    def full(stand: Stand, clock: FakeClock, sink: ScriptedSink) -> tuple[Engine, Counter[str]]:
        """An engine with three records that no file holds; and those that are in files."""
        engine = stand.engine(
            spec(sink, paused=True), clock=clock, segment_bytes=4096, max_bytes=2 * 4096
        )
        files = engine.journal.files
        assert files is not None
        assert files.writer is not None
        files.writer._monotonic = clock.monotonic
        logged: Counter[str] = Counter()
        for number in range(30):
            try:
                of = [record(f"m{number}", payload=BULK)]
                engine.offer(type="log", tenant="t", records=of, durable=True)
            except LogUnavailable:
                break
            logged[f"m{number}"] = 1
        assert 3 < logged.total() < 30
        for number in range(3):
            clock.advance(2.0)  # the disk may be tried again
            of = [record(f"late{number}", payload=BULK)]
            receipt = engine.offer(type="log", tenant="t", records=of)
            files.writer.flush()
            assert receipt.logged == "memory"
        assert files.stats()["state"] == "full"
        return engine, logged

    @staticmethod
    def check(stand: Stand, engine: Engine, logged: Counter[str]) -> None:
        row = ledger_row(engine, "a", "t")
        assert row["dropped"] == {"shutdown": 3}
        assert row["in_flight"] == logged.total()
        sink = ScriptedSink()
        second = stand.engine(spec(sink, max_wait_s=0.0), start=False)
        assert second.adoption is not None
        assert second.adoption.look() == 1
        second.start()
        sink.await_stored(logged.total())
        assert second.stop(PATIENCE_S)
        assert sink.stored == logged
        assert not stand.directory(engine).exists()

    def test_counts_them_as_dropped_and_leaves_the_others(
        self, stand: Stand, caplog: pytest.LogCaptureFixture
    ) -> None:
        engine, logged = self.full(stand, FakeClock(), ScriptedSink())
        assert not engine.stop(PATIENCE_S)
        assert "3 records are lost (shutdown): they were in memory alone" in caplog.text
        self.check(stand, engine, logged)

    def test_takes_them_out_of_a_batch_that_had_failed(
        self, stand: Stand, caplog: pytest.LogCaptureFixture
    ) -> None:
        sink: Any = ScriptedSink(always=RetryableError("down"))
        engine, logged = self.full(stand, FakeClock(), sink)
        engine.configure([spec(sink, max_wait_s=0.0)])
        stand.signals.wait_for(lambda s: bool(s.retries), timeout_s=PATIENCE_S)
        assert stand.signals.closed[0].records == logged.total() + 3
        assert not engine.stop(PATIENCE_S)
        assert "3 records are lost (shutdown): they were in memory alone" in caplog.text
        lost = [m for one in stand.signals.dropped for m in one.messages]
        assert lost == ["late0", "late1", "late2"]
        self.check(stand, engine, logged)
