"""Rolling up: minutes, hours and days; what is late; what races."""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections, transaction

from healthmon.history import rollup
from healthmon.history.histogram import Histogram
from healthmon.history.models import DAY, HOUR, MINUTE, ProbeResult, Rollup, RollupDue
from healthmon.history.rollup import RolledUp, Roller
from tests.healthmon.history.results import START, every, new_sink, sample, store

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "records"])

ON_POSTGRESQL = connections["records"].vendor == "postgresql"
WAIT_S = 180.0


def roll_up(now: datetime, *, budget_s: float = 600, **options: Any) -> RolledUp:
    return rollup.roll_up(now, budget_s=budget_s, **options)


def after(**ago: float) -> datetime:
    return START + timedelta(**ago)


def stored(span_s: int = MINUTE) -> dict[tuple[int, datetime], tuple[int, ...]]:
    return {
        (row.target_id, row.start): (row.ok, row.degraded, row.failed, row.void)
        for row in Rollup.objects.filter(span_s=span_s)
    }


def due_spans() -> list[tuple[int, datetime]]:
    return list(
        RollupDue.objects.filter(due=True)
        .order_by("span_s", "start")
        .values_list("span_s", "start")
    )


def test_a_minute_becomes_counts_and_a_histogram(sink):
    outcomes = ["ok", "ok", "degraded", "failed", "void", "ok"]
    times = [10.0, 20.0, 400.0, 9_999.0, 1.0, 30.0]
    samples = [
        sample(1, at, ms, outcome)
        for at, ms, outcome in zip(every(10, 6), times, outcomes, strict=True)
    ]
    store([*samples, sample(2, START, 5.0)], sink)
    done = roll_up(after(minutes=2))
    assert (done.minutes, done.rollups, done.left) == (1, 2, False)
    row = Rollup.objects.get(target_id=1)
    assert (row.span_s, row.start) == (MINUTE, START)
    assert (row.ok, row.degraded, row.failed, row.void) == (3, 1, 1, 1)
    assert (row.latency_sum_ms, row.latency_max_ms) == (460.0, 400.0)
    assert Histogram.merged([bytes(row.histogram)]) == Histogram.of([10, 20, 400, 30])
    assert stored()[(2, START)] == (1, 0, 0, 0)


def test_a_minute_waits_until_it_is_over(sink):
    store([sample(1, START)], sink)
    assert roll_up(after(seconds=60)).minutes == 0
    assert roll_up(after(seconds=60 + rollup.SETTLED_S[MINUTE])).minutes == 1
    assert roll_up(after(minutes=3)).minutes == 0


def test_rolling_up_again_changes_nothing(sink):
    store([sample(n % 3, at, 5.0 + n) for n, at in enumerate(every(7, 30))], sink)
    roll_up(after(hours=2))
    before = list(Rollup.objects.order_by("id").values_list())
    RollupDue.objects.update(due=True)
    assert roll_up(after(hours=2)).minutes == 4
    assert list(Rollup.objects.order_by("id").values_list()) == before


def test_hours_are_of_minutes_and_days_of_hours(sink):
    dice = random.Random(3)
    samples = [sample(1, at, dice.lognormvariate(3, 1)) for at in every(30, 3 * 120)]
    store(samples, sink)
    roll_up(after(hours=2, minutes=1))
    assert {start for _, start in stored(HOUR)} == {after(), after(hours=1)} - {after(hours=1)}
    roll_up(after(hours=4))
    assert stored(HOUR) == {(1, after(hours=n)): (120, 0, 0, 0) for n in range(3)}
    assert stored(DAY) == {}
    midnight = datetime(2026, 11, 21, tzinfo=UTC)
    roll_up(midnight + timedelta(minutes=6))
    row = Rollup.objects.get(span_s=DAY)
    assert (row.start, row.ok) == (midnight - timedelta(days=1), 360)
    latencies = [ProbeResult.objects.get(id=made.id).latency_ms for _, made in samples]
    assert Histogram.merged([bytes(row.histogram)]) == Histogram.of(latencies)
    assert row.latency_max_ms == max(latencies)
    assert row.latency_sum_ms == pytest.approx(sum(latencies))
    assert due_spans() == []


def test_a_late_result_is_counted_at_every_level(sink):
    store([sample(1, START)], sink)
    next_day = datetime(2026, 11, 21, 1, tzinfo=UTC)
    roll_up(next_day)
    assert stored(DAY) == {(1, START.replace(hour=0)): (1, 0, 0, 0)}
    late = after(minutes=30)
    store(
        [
            sample(1, after(seconds=5), arrived=late),
            sample(2, after(seconds=9), outcome="failed", arrived=late),
        ],
        sink,
    )
    roll_up(next_day)
    for span_s, start in ((MINUTE, START), (HOUR, START), (DAY, START.replace(hour=0))):
        assert stored(span_s) == {(1, start): (2, 0, 0, 0), (2, start): (0, 0, 1, 0)}
    assert due_spans() == []


def test_an_hour_waits_for_its_minutes(sink):
    store([sample(1, at) for at in every(60, 60)], sink)
    clock = iter([0.0, 0.0, 0.0, 99.0])
    done = roll_up(after(hours=3), budget_s=1.0, monotonic=lambda: next(clock))
    assert (done.minutes, done.hours, done.left) == (2, 0, True)
    assert roll_up(after(hours=3)).hours == 1
    assert stored(HOUR) == {(1, START): (60, 0, 0, 0)}


def test_many_targets_are_rolled_up_in_chunks(sink, monkeypatch):
    monkeypatch.setitem(rollup.CHUNK_TARGETS, MINUTE, 3)
    monkeypatch.setitem(rollup.CHUNK_TARGETS, HOUR, 4)
    store([sample(n, START) for n in range(1, 12)], sink)
    assert roll_up(after(hours=2)).rollups == 22
    assert len(stored(MINUTE)) == len(stored(HOUR)) == 11


def test_results_that_come_between_two_chunks_leave_the_minute_due(sink, monkeypatch):
    monkeypatch.setitem(rollup.CHUNK_TARGETS, MINUTE, 1)
    store([sample(1, START), sample(2, START)], sink)
    rolled_chunk = Roller.roll_chunk
    came: list[object] = []

    def and_one_more_comes(self: Roller, target_ids: list[int]) -> int:
        rolled = rolled_chunk(self, target_ids)
        if not came:
            # Of a target that this call is done with, and of one that it has not heard of.
            came.append(store([sample(1, START), sample(3, START)], sink))
        return rolled

    monkeypatch.setattr(Roller, "roll_chunk", and_one_more_comes)
    roll_up(after(minutes=2))
    assert (MINUTE, START) in due_spans()
    roll_up(after(minutes=2))
    assert stored() == {
        (1, START): (2, 0, 0, 0),
        (2, START): (1, 0, 0, 0),
        (3, START): (1, 0, 0, 0),
    }
    assert (MINUTE, START) not in due_spans()


def test_a_roller_that_died_half_way_costs_nothing(sink, monkeypatch):
    store([sample(n, START) for n in (1, 2)], sink)
    monkeypatch.setattr(Roller, "finish", lambda self, touches: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        roll_up(after(minutes=2))
    monkeypatch.undo()
    assert roll_up(after(minutes=2)).minutes == 1
    assert stored() == {(1, START): (1, 0, 0, 0), (2, START): (1, 0, 0, 0)}


def test_what_results_are_no_longer_kept_for_stays_as_it_was_rolled_up(sink, settings):
    old = START - timedelta(days=30)
    store([sample(1, old)], sink)
    Rollup.objects.create(target_id=1, span_s=MINUTE, start=old, ok=6)
    assert roll_up(START).rollups == 0
    assert stored() == {(1, old): (6, 0, 0, 0)}
    assert due_spans() == []


# --- races: real connections, each its own --------------------------------------------------


def in_thread(work) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def waiting_for_a_lock() -> bool:
    with connections["records"].cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND datname = current_database() AND query LIKE '%FOR UPDATE'"
        )
        return bool(cursor.fetchone()[0])


@pytest.mark.skipif(not ON_POSTGRESQL, reason="on SQLite nobody writes beside a roller")
def test_a_sink_in_mid_transaction_is_waited_for_or_counted_later(sink, monkeypatch):
    """The sink has its rows and the mark's lock, and has not committed: the roller must wait."""
    store([sample(1, START)], sink)
    touched, go_on = threading.Event(), threading.Event()
    from sinks.postgresql.copy import _Writing

    close = _Writing._close

    def close_and_wait(self: _Writing) -> None:
        close(self)
        touched.set()
        assert go_on.wait(WAIT_S)

    second = new_sink()
    with monkeypatch.context() as patched:
        patched.setattr(_Writing, "_close", close_and_wait)
        writer, failed = in_thread(lambda: store([sample(1, START, 50.0)], second))
        assert touched.wait(WAIT_S)
    roller, rolled = in_thread(lambda: roll_up(after(minutes=2)))
    while not waiting_for_a_lock():
        assert roller.is_alive()
    assert stored() == {}
    go_on.set()
    for thread in (writer, roller):
        thread.join(WAIT_S)
        assert not thread.is_alive()
    second.close()
    assert (failed, rolled) == ([], [])
    assert stored() == {(1, START): (2, 0, 0, 0)}
    # It was touched after the roller had read its count: once more, to the same.
    roll_up(after(minutes=2))
    assert stored() == {(1, START): (2, 0, 0, 0)}
    assert (MINUTE, START) not in due_spans()


def test_a_slow_roller_does_not_undo_a_later_one(sink, monkeypatch):
    """The first reads the mark, then another result comes and is rolled up by the second."""
    store([sample(1, START)], sink)
    (mark,) = rollup._marks_due(connections["records"], MINUTE, after(minutes=2))
    slow = Roller(connection=connections["records"], span_s=MINUTE, start_s=mark.start_s)
    store([sample(1, START)], sink)
    roll_up(after(minutes=2))
    slow.roll(touches=mark.touches, now=after(minutes=2))
    assert stored() == {(1, START): (2, 0, 0, 0)}


@pytest.mark.concurrency
def test_sinks_and_rollers_at_once_lose_no_result(sink):
    """Two sinks write to the same minutes while two rollers roll them up all the time."""
    now, sinks = after(hours=2), [sink, new_sink()]
    rounds, left = 25, threading.Semaphore(0)
    writing = threading.Event()
    writing.set()

    def write(own, seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(rounds):
            store(
                [
                    sample(dice.randint(1, 5), after(seconds=dice.randint(0, 179)))
                    for _ in range(20)
                ],
                own,
            )
        left.release()

    def keep_rolling() -> None:
        while writing.is_set():
            roll_up(now)

    threads = [in_thread(lambda s=s, n=n: write(s, n)) for n, s in enumerate(sinks)]
    threads += [in_thread(keep_rolling) for _ in range(2)]
    for _ in sinks:
        assert left.acquire(timeout=WAIT_S)
    writing.clear()
    for thread, errors in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
        assert errors == []
    sinks[1].close()
    roll_up(now)
    assert ProbeResult.objects.count() == 2 * rounds * 20
    for span_s in (MINUTE, HOUR):
        assert sum(counts[0] for counts in stored(span_s).values()) == 2 * rounds * 20
    assert [span for span, _ in due_spans()] == [DAY]


@pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite has one lock for all")
def test_a_sink_does_not_wait_for_another_minutes_roller(sink):
    store([sample(1, START), sample(1, after(minutes=1))], sink)
    with transaction.atomic(using="records"):
        RollupDue.objects.using("records").select_for_update().get(start=START)
        store([sample(1, after(minutes=1))], sink)
    assert ProbeResult.objects.count() == 3
