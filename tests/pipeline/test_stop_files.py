"""A stop of an engine with files, while an offer is in its sync and while the disk hangs."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from pipeline.engine import Engine
from pipeline.errors import LogUnavailable
from pipeline.pipeline import Pipeline
from tests.pipeline.rig import imbalances
from tests.pipeline.stand import Offer, Stand
from tests.pipeline.support import PATIENCE_S, ScriptedSink, records, spec
from tests.pipeline.test_log_files import Lives


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(tmp_path / "wal")
    yield stand
    stand.end()


def stopped(engine: Engine, timeout_s: float) -> tuple[threading.Thread, list[bool]]:
    answers: list[bool] = []
    thread = threading.Thread(
        target=lambda: answers.append(engine.stop(timeout_s)), name="stop", daemon=True
    )
    thread.start()
    return thread, answers


def test_an_offer_in_its_sync_is_stored_before_the_stop_is_over(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stop begins when there is nothing to see of the offer but the room it has reserved."""
    sink = ScriptedSink()
    engine = stand.engine(spec(sink, max_wait_s=0.0))
    (pipeline,) = engine.pipelines
    looked = threading.Event()
    idles, halt = pipeline._idles, pipeline.halt

    def looks() -> bool:
        found = idles()
        looked.set()
        return found

    def halts() -> None:
        halt()
        looked.set()

    monkeypatch.setattr(pipeline, "_idles", looks)
    monkeypatch.setattr(pipeline, "halt", halts)
    stand.disk.hold()
    offered = records(100)
    offer = Offer(engine, offered)
    assert stand.disk.entered.wait(PATIENCE_S)
    thread, answers = stopped(engine, PATIENCE_S)
    assert looked.wait(PATIENCE_S)
    stand.disk.let_go()
    offer.join()
    thread.join(PATIENCE_S)
    assert offer.receipt is not None
    assert offer.receipt.logged == "wal"
    assert sink.stored == Counter(one.message for one in offered)
    assert answers == [True]
    assert imbalances(engine) == {}
    assert not (stand.root / engine.log_id).exists()


def test_an_offer_in_its_sync_that_nobody_can_deliver_keeps_its_log(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sync ends while the log is being closed: then it is not settled."""
    engine = stand.engine(spec(ScriptedSink(), paused=True))
    files = engine.journal.files
    assert files is not None
    close = engine.journal.close

    def closes() -> bool:
        stand.disk.let_go()
        return close()

    monkeypatch.setattr(engine.journal, "close", closes)
    # What would wait for the disk before the log is closed.
    monkeypatch.setattr(engine._keeper, "turn", lambda: None)
    stand.disk.hold()
    offered = records(10)
    offer = Offer(engine, offered)
    assert stand.disk.entered.wait(PATIENCE_S)
    assert not engine.stop(PATIENCE_S)
    offer.join()
    assert offer.receipt is not None
    assert offer.receipt.logged == "wal"
    assert (stand.root / engine.log_id).exists()
    sink = ScriptedSink()
    stand.engine(spec(sink, max_wait_s=0.0))
    sink.await_stored(10)
    assert sink.stored == Counter(one.message for one in offered)


def test_a_log_that_is_closed_during_a_sync_counts_what_comes_of_it(tmp_path: Path) -> None:
    """The same without an engine: `close` judges only after nothing can come in any more."""
    lives = Lives(tmp_path)
    entered, go = threading.Event(), threading.Event()

    def hold_up(what: str, path: Path | None) -> None:
        if what == "sync" and not go.is_set():
            entered.set()
            assert go.wait(PATIENCE_S)

    lives.disk.before = hold_up
    appending = threading.Thread(target=lives.offer, daemon=True)
    appending.start()
    assert entered.wait(PATIENCE_S)
    files = lives.life.log.files
    assert files is not None
    group = lives.life.writer._group
    alone = group.alone

    def waits(work: object) -> None:
        go.set()  # only now, as the close has come so far
        alone(work)  # type: ignore[arg-type]

    setattr(group, "alone", waits)  # noqa: B010
    assert not lives.life.log.close()
    appending.join(PATIENCE_S)
    assert (tmp_path / lives.life.name).exists()
    lives.disk.crash(Random(0), power=False)
    lives.next_life()
    lives.deliver_all()
    assert lives.stored() == [1]


def test_a_log_that_is_closed_takes_nothing_more(stand: Stand) -> None:
    engine = stand.engine(spec(ScriptedSink(), paused=True))
    files = engine.journal.files
    assert files is not None
    files.seal()
    late = Offer(engine, records(1))
    late.join()
    assert isinstance(late.error, LogUnavailable)
    assert engine.journal.settled


def test_a_disk_that_hangs_holds_up_no_stop_and_is_told(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    sink = ScriptedSink()
    engine = stand.engine(spec(sink, max_wait_s=0.0))
    stand.disk.hold()
    offer = Offer(engine, records(5))
    assert stand.disk.entered.wait(PATIENCE_S)
    with caplog.at_level(logging.ERROR):
        assert not engine.stop(0.2)
    assert not stand.disk.gave_up, "the stop waited for the disk"
    assert not stand.disk.go.is_set()
    assert "the disk under" in caplog.text
    assert "log-close did not end" in caplog.text
    assert str(stand.root / engine.log_id) in caplog.text
    assert (stand.root / engine.log_id).exists()
    stand.disk.let_go()
    offer.join()
    for thread in threading.enumerate():
        if thread.name == "log-close":
            thread.join(PATIENCE_S)
    # What the disk took after all is for the next process.
    assert offer.receipt is not None
    assert (stand.root / engine.log_id).exists()
    assert sink.stored == Counter()
    again = ScriptedSink()
    stand.engine(spec(again, max_wait_s=0.0))
    again.await_stored(5)


def test_a_stop_is_over_although_the_last_state_cannot_be_written_and_keeps_the_log(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    """All is delivered, and a crash in the middle of a removal could not be told from a loss."""
    sink = ScriptedSink()
    engine = stand.engine(spec(sink, max_wait_s=0.0))
    engine.offer(type="log", tenant="t", records=records(3), durable=True)
    assert engine.flush(PATIENCE_S)
    stand.disk.fail("write", 5)
    engine.stop(PATIENCE_S)
    assert "its last state cannot be written" in caplog.text
    assert (stand.root / engine.log_id).exists()
    assert stand.disk.open_files == 0


def test_two_who_stop_an_engine_at_once_have_its_log_closed_once(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a second Ctrl-C does; of two who close, the later writes to files that are closed."""
    engine = stand.engine(spec(ScriptedSink(), paused=True))
    engine.offer(type="log", tenant="t", records=records(3), durable=True)
    files = engine.journal.files
    assert files is not None
    closings, close_logs = [], engine._close_logs
    closed_at_return: list[bool] = []

    def closes(pipelines: list[Pipeline]) -> None:
        closings.append(threading.current_thread())
        close_logs(pipelines)

    def stops() -> None:
        engine.stop(PATIENCE_S)
        closed_at_return.append(files.closed)

    monkeypatch.setattr(engine, "_close_logs", closes)
    stand.disk.hold()
    threads = [threading.Thread(target=stops, daemon=True) for _ in range(2)]
    threads[0].start()
    assert stand.disk.entered.wait(PATIENCE_S)  # it writes the last state
    threads[1].start()
    stand.disk.let_go()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert closed_at_return == [True, True]
    assert len(closings) == 1
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR] == []
