"""What a process writes of itself and of others: rows, samples, workers' lives, deaths, answers."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import DataError, OperationalError, connection

from control.models import PipelineSample, Process, ProcessRequest, WorkerRun
from control.ports.requests import register_request_handler, unregister_request_handler
from control.processes import retention
from control.processes.identity import GONE_AFTER, Identity
from control.processes.models import DEAD_AFTER
from control.processes.requests import RequestDesk
from control.processes.samples import MAX_WAITING, Sampler
from control.processes.workers import WorkerHistory, WorkerLives
from pipeline.delivery.workers import WorkerRun as Life
from pipeline.runtime.clock import FakeClock

pytestmark = pytest.mark.django_db


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def stats() -> dict[str, Any]:
    return {"log_id": "log-1", "pipelines": [], "ledger": [], "workers": []}


@pytest.fixture
def identity(clock: FakeClock, stats: dict[str, Any]) -> Identity:
    return Identity(role="server", clock=clock, stats=lambda: dict(stats))


def another(clock: FakeClock, **changes: Any) -> Process:
    """A process that beat just now."""
    now = Identity(role="server", clock=clock).now()
    values = {
        "role": "server",
        "host": "elsewhere",
        "pid": 1,
        "started_at": now,
        "last_seen_at": now,
        **changes,
    }
    return Process.objects.create(**values)


def lost(*args: Any) -> Any:
    raise OperationalError("away")


# --- identity --------------------------------------------------------------------------------


def test_the_first_heartbeat_makes_the_row(identity: Identity, stats: dict[str, Any]) -> None:
    stats["ledger"] = [{"sink": "database", "accepted": 1}]
    identity.heartbeat()
    row = Process.objects.get()
    assert (row.pk, row.role, row.pid, row.host) == (
        identity.id,
        "server",
        os.getpid(),
        socket.gethostname(),
    )
    assert (row.log_id, row.ledger) == ("log-1", [{"sink": "database", "accepted": 1}])
    assert "ledger" not in row.stats
    assert row.version
    assert row.is_alive(identity.now())


def test_later_ones_move_it_on(identity: Identity, clock: FakeClock) -> None:
    identity.heartbeat()
    clock.advance(5)
    identity.heartbeat()
    row = Process.objects.get()
    assert row.last_seen_at - row.started_at == timedelta(seconds=5)


@pytest.mark.django_db(transaction=True)
def test_the_row_is_made_later_when_the_database_was_away(identity: Identity) -> None:
    with connection.execute_wrapper(lost), pytest.raises(OperationalError):
        identity.heartbeat()
    identity.heartbeat()
    assert Process.objects.filter(pk=identity.id).exists()


def test_figures_that_are_no_json_do_not_cost_the_heartbeat(
    identity: Identity, stats: dict[str, Any]
) -> None:
    stats["pipelines"] = [{"oldest_s": float("inf"), "rate": float("nan"), "path": object()}]
    identity.heartbeat()
    figures = Process.objects.get().stats["pipelines"][0]
    assert (figures["oldest_s"], figures["rate"]) == (None, None)


def test_an_end_in_order_is_written_with_its_workers(identity: Identity) -> None:
    identity.heartbeat()
    WorkerRun.objects.create(
        process_id=identity.id, pipeline="p", worker="w", started_at=identity.now()
    )
    identity.ended("stopped")
    row = Process.objects.get()
    assert (row.exit_reason, row.stopped_at) == ("stopped", identity.now())
    assert not row.is_alive(identity.now())
    assert WorkerRun.objects.get().ended_at == identity.now()


def test_the_silent_are_declared_dead_with_their_workers(
    identity: Identity, clock: FakeClock
) -> None:
    silent = another(clock)
    WorkerRun.objects.create(process=silent, pipeline="p", worker="w", started_at=silent.started_at)
    clock.advance(DEAD_AFTER.total_seconds() - 1)
    assert identity.mark_dead() == 0
    clock.advance(1)
    identity.heartbeat()
    assert identity.mark_dead() == 1
    silent.refresh_from_db()
    assert silent.stopped_at == silent.last_seen_at
    assert "no heartbeat since" in silent.exit_reason
    assert WorkerRun.objects.get().ended_at == silent.last_seen_at
    assert identity.mark_dead() == 0
    assert Process.objects.get(pk=identity.id).stopped_at is None


def test_a_gone_pid_of_this_machine_is_noticed_sooner(identity: Identity, clock: FakeClock) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    gone = another(clock, host=identity.host, pid=child)
    living = another(clock, host=identity.host, pid=os.getpid())
    clock.advance(GONE_AFTER.total_seconds() + 1)
    assert identity.mark_dead() == 1
    gone.refresh_from_db()
    living.refresh_from_db()
    assert "its process is gone" in gone.exit_reason
    assert living.stopped_at is None


def test_who_beats_while_being_looked_at_is_not_declared_dead(
    identity: Identity, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Identity(role="server", clock=clock, host=identity.host, pid=999)
    slow.heartbeat()
    WorkerRun.objects.create(
        process_id=slow.id, pipeline="p", worker="w", started_at=slow.started_at
    )
    clock.advance(60)

    def beats_meanwhile(pid: int) -> bool:
        slow.heartbeat()
        return False

    monkeypatch.setattr("control.processes.identity._pid_exists", beats_meanwhile)
    assert identity.mark_dead() == 0
    assert Process.objects.get(pk=slow.id).stopped_at is None
    assert WorkerRun.objects.get().ended_at is None


def test_who_was_declared_dead_too_soon_comes_back(identity: Identity, clock: FakeClock) -> None:
    identity.heartbeat()
    clock.advance(60)
    assert Identity(role="server", clock=clock, host="other").mark_dead() == 1
    identity.heartbeat()
    row = Process.objects.get(pk=identity.id)
    assert (row.stopped_at, row.exit_reason) == (None, "")


# --- samples ---------------------------------------------------------------------------------


def a_pipeline(**figures: Any) -> dict[str, Any]:
    return {
        "key": "k",
        "name": "database",
        "held_records": 7,
        "capacity_records": 100,
        "held_bytes": 70,
        "workers": 2,
        "write_latency": {"p50": 0.01, "p95": 0.02, "p99": 0.03},
        "accepted": 0,
        "stored": 0,
        "refused": 0,
        "dropped": {},
        "flushes": {},
        **figures,
    }


@pytest.fixture
def sampler(identity: Identity, clock: FakeClock, stats: dict[str, Any]) -> Sampler:
    identity.heartbeat()
    return Sampler(
        process_id=identity.id, now=identity.now, monotonic=clock.monotonic, stats=lambda: stats
    )


def test_samples_hold_differences_and_gauges(
    sampler: Sampler, clock: FakeClock, stats: dict[str, Any]
) -> None:
    for accepted, flushes in ((100, {"size": 1}), (250, {"size": 2, "time": 3})):
        clock.advance(5)
        stats["pipelines"] = [
            a_pipeline(accepted=accepted, stored=accepted - 7, dropped={"x": 1}, flushes=flushes)
        ]
        sampler.take()
    first, second = PipelineSample.objects.order_by("at")
    assert (first.accepted, first.stored, first.dropped, first.batches) == (100, 93, 1, 1)
    assert (second.accepted, second.stored, second.dropped, second.batches) == (150, 150, 0, 4)
    assert (second.held_records, second.workers, second.write_p99_s) == (7, 2, 0.03)
    assert second.interval_s == pytest.approx(5)


def test_samples_tell_of_sizes_steps_and_what_was_shed(
    sampler: Sampler, clock: FakeClock, stats: dict[str, Any]
) -> None:
    sizes = {"batch_limit": 125, "write_limit": 3}
    for ups, shed in ((1, 10), (3, 25)):
        clock.advance(5)
        steps = {"scaled_up": ups, "scaled_down": ups - 1}
        dropped = {"shed": shed, "backlog": 2}
        stats["pipelines"] = [a_pipeline(**sizes, **steps, dropped=dropped)]
        sampler.take()
    first, second = PipelineSample.objects.order_by("at")
    assert (second.batch_limit, second.write_limit) == (125, 3)
    assert (first.scaled_up, second.scaled_up, second.scaled_down) == (1, 2, 2)
    assert (first.shed, second.shed, second.dropped) == (10, 15, 15)


def test_samples_tell_how_full_a_queue_was_between_them(
    identity: Identity, clock: FakeClock, stats: dict[str, Any]
) -> None:
    identity.heartbeat()
    sampler = Sampler(
        process_id=identity.id,
        now=identity.now,
        monotonic=clock.monotonic,
        stats=lambda: stats,
        peaks=lambda: {"k": 0.8},
    )
    clock.advance(5)
    stats["pipelines"] = [a_pipeline(), a_pipeline(key="made a moment ago")]
    sampler.take()
    assert dict(PipelineSample.objects.values_list("key", "peak_fill")) == {
        "k": 0.8,
        "made a moment ago": 0.0,
    }


def test_a_pipeline_made_anew_counts_from_nothing(
    sampler: Sampler, clock: FakeClock, stats: dict[str, Any]
) -> None:
    for accepted in (100, 30):
        clock.advance(5)
        stats["pipelines"] = [a_pipeline(accepted=accepted)]
        sampler.take()
    assert [s.accepted for s in PipelineSample.objects.order_by("at")] == [100, 30]


@pytest.mark.django_db(transaction=True)
def test_samples_of_an_outage_are_written_after_it(
    sampler: Sampler, clock: FakeClock, stats: dict[str, Any]
) -> None:
    with connection.execute_wrapper(lost):
        for accepted in (10, 30):
            clock.advance(5)
            stats["pipelines"] = [a_pipeline(accepted=accepted)]
            with pytest.raises(OperationalError):
                sampler.take()
    clock.advance(5)
    stats["pipelines"] = [a_pipeline(accepted=60)]
    sampler.take()
    assert [s.accepted for s in PipelineSample.objects.order_by("at")] == [10, 20, 30]


def test_an_endless_outage_does_not_fill_the_memory(
    sampler: Sampler, clock: FakeClock, stats: dict[str, Any]
) -> None:
    stats["pipelines"] = [a_pipeline() for _ in range(MAX_WAITING // 2)]
    with connection.execute_wrapper(lost):
        for _ in range(4):
            clock.advance(5)
            with pytest.raises(OperationalError):
                sampler.take()
    assert len(sampler._waiting) == MAX_WAITING


# --- workers ---------------------------------------------------------------------------------


def a_worker(
    name: str = "w-1", started_at: float = 1_700_000_000.123456, **counts: int
) -> dict[str, Any]:
    return {
        "pipeline": "database",
        "worker": name,
        "started_at": started_at,
        "records": 0,
        "batches": 0,
        "failures": 0,
        "busy": False,
        **counts,
    }


@pytest.fixture
def history() -> WorkerHistory:
    return WorkerHistory()


@pytest.fixture
def lives(identity: Identity, history: WorkerHistory, stats: dict[str, Any]) -> WorkerLives:
    identity.heartbeat()
    return WorkerLives(
        process_id=identity.id, now=identity.now, history=history, stats=lambda: stats
    )


def ended(**changes: Any) -> Life:
    values = {
        "pipeline": "database",
        "worker": "w-1",
        "started_us": 1_700_000_000_123_456,
        "ended_us": 1_700_000_060_000_000,
        "records": 9,
        "batches": 3,
        "failures": 1,
        "busy": False,
        **changes,
    }
    return Life(**values)


def test_a_life_from_first_sight_to_the_end(
    lives: WorkerLives, history: WorkerHistory, stats: dict[str, Any]
) -> None:
    stats["workers"] = [a_worker()]
    lives.write()
    stats["workers"] = [a_worker(records=5, batches=2)]
    lives.write()
    row = WorkerRun.objects.get()
    assert (row.records, row.batches, row.ended_at) == (5, 2, None)
    stats["workers"] = []
    history.worker_ended(ended())
    lives.write()
    row.refresh_from_db()
    assert (row.records, row.batches, row.failures) == (9, 3, 1)
    assert row.ended_at is not None
    assert row.ended_at.timestamp() == 1_700_000_060


def test_a_life_too_short_to_be_seen_is_written_too(
    lives: WorkerLives, history: WorkerHistory
) -> None:
    history.worker_ended(ended())
    lives.write()
    row = WorkerRun.objects.get()
    assert (row.records, row.ended_at is not None) == (9, True)


def test_a_worker_that_vanished_has_ended(
    lives: WorkerLives, stats: dict[str, Any], identity: Identity
) -> None:
    stats["workers"] = [a_worker()]
    lives.write()
    stats["workers"] = []
    lives.write()
    assert WorkerRun.objects.get().ended_at == identity.now()


def test_an_idle_pool_writes_nothing(
    lives: WorkerLives, stats: dict[str, Any], django_assert_num_queries: Any
) -> None:
    stats["workers"] = [a_worker(), a_worker("w-2")]
    lives.write()
    with django_assert_num_queries(0):
        lives.write()
    assert WorkerRun.objects.count() == 2


def test_ended_lives_survive_an_outage(lives: WorkerLives, history: WorkerHistory) -> None:
    history.worker_ended(ended())
    with connection.execute_wrapper(lost), pytest.raises(OperationalError):
        lives.write()
    lives.write()
    lives.write()
    assert WorkerRun.objects.get().records == 9


# --- deaths and oblivion ---------------------------------------------------------------------


def test_old_rows_are_forgotten_and_no_others(identity: Identity, clock: FakeClock) -> None:
    identity.heartbeat()
    now = identity.now()
    old = another(clock, stopped_at=now - timedelta(days=15))
    recent = another(clock, stopped_at=now - timedelta(days=13))
    for process in (identity.id, recent.pk):
        for hours in (23, 25):
            PipelineSample.objects.create(
                process_id=process, key="k", name="n", at=now - timedelta(hours=hours), interval_s=5
            )
        for days in (13, 15):
            WorkerRun.objects.create(
                process_id=process,
                pipeline="p",
                worker=f"w-{days}",
                started_at=now - timedelta(days=16),
                ended_at=now - timedelta(days=days),
            )
    living = WorkerRun.objects.create(
        process_id=identity.id, pipeline="p", worker="old", started_at=now - timedelta(days=99)
    )
    request = ProcessRequest.objects.create(process=recent, kind="report")
    ProcessRequest.objects.update(created_at=now - timedelta(days=2))
    retention.forget_old(now, samples_hours=24, worker_runs_days=14)
    assert PipelineSample.objects.count() == 2
    assert set(WorkerRun.objects.values_list("worker", flat=True)) == {"w-13", "old"}
    assert WorkerRun.objects.filter(pk=living.pk).exists()
    assert set(Process.objects.values_list("pk", flat=True)) == {identity.id, recent.pk}
    assert not ProcessRequest.objects.filter(pk=request.pk).exists()
    assert old.pk is not None


# --- requests --------------------------------------------------------------------------------


class Asked:
    """A desk with its handlers on real threads, and a signal when an answer waits."""

    def __init__(self, identity: Identity) -> None:
        self.finished = threading.Semaphore(0)
        self.desk = RequestDesk(
            process_id=identity.id, now=identity.now, finished=self.finished.release
        )
        self.identity = identity

    def request(self, kind: str, **args: Any) -> ProcessRequest:
        return ProcessRequest.objects.create(process_id=self.identity.id, kind=kind, args=args)

    def serve(self, count: int = 1) -> None:
        self.desk.claim()
        for _ in range(count):
            assert self.finished.acquire(timeout=180)
        self.desk.answer()


@pytest.fixture
def asked(identity: Identity) -> Asked:
    identity.heartbeat()
    return Asked(identity)


@pytest.fixture
def handle() -> Iterator[Callable[[str, Callable[[dict[str, Any]], Any]], None]]:
    kinds = []

    def register(kind: str, handler: Callable[[dict[str, Any]], Any]) -> None:
        kinds.append(kind)
        register_request_handler(kind, handler)

    yield register
    for kind in kinds:
        unregister_request_handler(kind)


def test_a_request_is_run_and_answered(asked: Asked, handle: Any) -> None:
    handle("double", lambda args: {"is": args["n"] * 2, "on": threading.current_thread().name})
    request = asked.request("double", n=21)
    asked.serve()
    request.refresh_from_db()
    assert request.result == {"is": 42, "on": "control-request-double"}
    assert request.claimed_at == request.finished_at == asked.identity.now()


def test_a_request_runs_once(asked: Asked, handle: Any) -> None:
    runs: list[int] = []
    handle("count", lambda args: runs.append(1))
    asked.request("count")
    asked.serve()
    asked.desk.claim()
    asked.desk.answer()
    assert runs == [1]


def test_requests_of_other_processes_are_left_to_them(asked: Asked, clock: FakeClock) -> None:
    other = ProcessRequest.objects.create(process=another(clock), kind="report")
    asked.desk.claim()
    other.refresh_from_db()
    assert other.claimed_at is None


def test_a_failure_is_the_answer(asked: Asked, handle: Any) -> None:
    def fail(args: dict[str, Any]) -> None:
        raise ValueError("no such sink")

    handle("fail", fail)
    request = asked.request("fail")
    asked.serve()
    request.refresh_from_db()
    assert request.result == {"error": "ValueError: no such sink"}


def test_an_unknown_kind_is_answered_with_what_is_known(asked: Asked, handle: Any) -> None:
    handle("known", lambda args: None)
    request = asked.request("unknown")
    asked.serve()
    request.refresh_from_db()
    error = str(request.result)
    assert "cannot 'unknown'" in error
    assert "it can: " in error


@pytest.mark.django_db(transaction=True)
def test_an_answer_waits_for_the_database(asked: Asked, handle: Any) -> None:
    handle("work", lambda args: "done")
    request = asked.request("work")
    asked.desk.claim()
    assert asked.finished.acquire(timeout=180)
    with connection.execute_wrapper(lost), pytest.raises(OperationalError):
        asked.desk.answer()
    assert asked.desk.waiting
    asked.desk.answer()
    request.refresh_from_db()
    assert request.result == "done"
    assert not asked.desk.waiting


def test_an_answer_that_the_database_refuses_does_not_hold_up_the_next(
    asked: Asked, handle: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "poison" in str(params):
            raise DataError("unsupported Unicode escape sequence")
        return execute(sql, params, many, context)

    handle("say", lambda args: args["text"])
    bad, good = asked.request("say", text="poison"), asked.request("say", text="fine")
    asked.desk.claim()
    for _ in range(2):
        assert asked.finished.acquire(timeout=180)
    with connection.execute_wrapper(refuse):
        asked.desk.answer()
    bad.refresh_from_db()
    good.refresh_from_db()
    assert bad.result == {"error": "the answer could not be stored: DataError"}
    assert good.result == "fine"
    assert "answer not stored" in caplog.text


def test_a_nul_in_an_answer_is_spelled_out(asked: Asked, handle: Any) -> None:
    handle("nul", lambda args: {"a\0": ["b\0c", {"d": 1}], "e": "\\u0000"})
    request = asked.request("nul")
    asked.serve()
    request.refresh_from_db()
    assert request.result == {"a\\u0000": ["b\\u0000c", {"d": 1}], "e": "\\u0000"}


def test_what_is_open_at_the_end_is_refused(asked: Asked) -> None:
    request = asked.request("late")
    asked.desk.refuse_all("the process stopped")
    request.refresh_from_db()
    assert request.result == {"error": "the process stopped"}


def test_no_flood_of_requests_starts_a_flood_of_threads(asked: Asked, handle: Any) -> None:
    go = threading.Event()
    handle("hold", lambda args: go.wait(30))
    for _ in range(30):
        asked.request("hold")
    asked.desk.claim()
    asked.desk.claim()
    assert ProcessRequest.objects.exclude(claimed_at=None).count() == 8
    go.set()
    for _ in range(8):
        assert asked.finished.acquire(timeout=180)
    asked.serve(8)
