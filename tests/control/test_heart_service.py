"""The heart's service on its real thread and database: a whole life, an outage, an end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, connections

from control.auth.keys import create_key, keyring
from control.auth.models import ApiKey
from control.models import PipelineSample, Process, ProcessRequest, WorkerRun
from control.ports.readiness import readiness
from control.ports.requests import register_request_handler, unregister_request_handler
from control.ports.stats import register_stats
from control.processes.heart import Heart
from control.processes.identity import current_identity
from control.processes.service import HeartService
from control.processes.workers import worker_history
from pipeline.runtime.clock import FakeClock

pytestmark = pytest.mark.django_db(transaction=True)

FIGURES: dict[str, Any] = {
    "log_id": "log-1",
    "pipelines": [
        {"key": "k", "name": "database", "accepted": 3, "stored": 3, "flushes": {"t": 1}}
    ],
    "ledger": [{"sink": "database", "tenant": "default", "accepted": 3, "imbalance": 0}],
    "workers": [
        {
            "pipeline": "database",
            "worker": "w-1",
            "started_at": 1_700_000_000.0,
            "records": 3,
            "batches": 1,
            "failures": 0,
        }
    ],
}


class Beats:
    """A heart that tells each beat it has finished."""

    def __init__(self, heart: Heart) -> None:
        self._beat = heart.beat
        self._done = threading.Semaphore(0)
        heart.beat = self  # type: ignore[method-assign]

    def __call__(self) -> float:
        delay = self._beat()
        self._done.release()
        return delay

    def wait(self) -> None:
        assert self._done.acquire(timeout=60)

    def forget(self) -> None:
        while self._done.acquire(blocking=False):
            pass


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def heart(clock: FakeClock) -> Heart:
    return Heart(clock=clock)


@pytest.fixture
def beats(heart: Heart) -> Beats:
    return Beats(heart)


@pytest.fixture
def service(heart: Heart, clock: FakeClock, no_stats: None) -> Iterator[HeartService]:
    register_stats(lambda: FIGURES)
    service = HeartService(pulse=heart, clock=clock)
    yield service
    service.stop(60)


def until(beats: Beats, clock: FakeClock, true: Callable[[], bool], step_s: float = 2.0) -> None:
    """Let time pass beat by beat until something is so."""
    for _ in range(50):
        if true():
            return
        beats.forget()
        clock.advance(step_s)
        beats.wait()
    raise AssertionError("it never came to be")


def test_a_whole_life(service: HeartService, beats: Beats, clock: FakeClock) -> None:
    worker_history().take()  # the workers of earlier tests in this process
    service.start("server")
    service.start("server")
    until(beats, clock, Process.objects.exists)
    identity = current_identity()
    assert identity is not None
    row = Process.objects.get()
    assert (row.pk, row.role, row.log_id) == (identity.id, "server", "log-1")
    until(beats, clock, lambda: WorkerRun.objects.filter(ended_at=None).exists())
    until(beats, clock, lambda: PipelineSample.objects.filter(accepted=3).exists())
    service.stop(60)
    service.stop(60)
    row.refresh_from_db()
    assert (row.exit_reason, row.stopped_at is not None) == ("stopped", True)
    assert row.ledger == FIGURES["ledger"]
    assert WorkerRun.objects.get().ended_at is not None
    assert current_identity() is None


def test_a_second_life_is_another_row(service: HeartService, beats: Beats) -> None:
    for _ in range(2):
        service.start("server")
        beats.wait()
        service.stop(60)
    assert Process.objects.filter(exit_reason="stopped").count() == 2


def test_an_outage_ends_and_nothing_else_does(
    service: HeartService,
    heart: Heart,
    beats: Beats,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service.start("server")
    until(beats, clock, Process.objects.exists)
    seen = Process.objects.get().last_seen_at
    wrapper = type(connections["default"])
    with monkeypatch.context() as patch:

        def away(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread().name == "control-heart":
                raise OperationalError("server closed the connection unexpectedly")
            return real(*args, **kwargs)

        real = wrapper.create_cursor
        patch.setattr(wrapper, "create_cursor", away)
        until(beats, clock, lambda: heart.database_cause("default") is not None)
        assert "has not answered" in str(readiness()["database_default"])
    until(beats, clock, lambda: heart.database_cause("default") is None)
    assert readiness()["database_default"] is None
    until(beats, clock, lambda: Process.objects.get().last_seen_at > seen)


def test_a_key_revoked_elsewhere_is_refused_after_one_turn(
    service: HeartService, beats: Beats, clock: FakeClock
) -> None:
    key, token = create_key(tenant="default", name="app", scopes=["logs"])
    service.start("server")
    until(beats, clock, Process.objects.exists)
    assert keyring().authenticate(token) is not None
    # As another process would: no signal reaches this one.
    ApiKey.objects.filter(pk=key.pk).update(revoked_at=key.created_at)
    beats.forget()
    clock.advance(2.0)
    beats.wait()
    assert keyring().authenticate(token) is None


def test_the_last_use_of_a_key_is_written_within_a_minute_and_at_the_end(
    service: HeartService, beats: Beats, clock: FakeClock
) -> None:
    key, token = create_key(tenant="default", name="app", scopes=["logs"])
    service.start("server")
    until(beats, clock, Process.objects.exists)
    keyring().authenticate(token)
    beats.forget()
    clock.advance(60.0)
    beats.wait()
    key.refresh_from_db()
    first = key.last_used_at
    assert first is not None
    keyring().authenticate(token)
    service.stop(60)
    key.refresh_from_db()
    assert key.last_used_at is not None
    assert key.last_used_at > first


def test_an_answer_comes_with_fresh_figures(
    service: HeartService, beats: Beats, clock: FakeClock
) -> None:
    figures = dict(FIGURES)
    register_stats(lambda: figures)

    def settle(args: dict[str, Any]) -> dict[str, Any]:
        figures["ledger"] = [{**FIGURES["ledger"][0], "accepted": 99}]
        return {"settled": True}

    register_request_handler("test-settle", settle)
    try:
        service.start("server")
        until(beats, clock, Process.objects.exists)
        request = ProcessRequest.objects.create(
            process=Process.objects.get(), kind="test-settle", args={}
        )

        def answered() -> bool:
            request.refresh_from_db()
            return request.finished_at is not None

        until(beats, clock, answered)
        assert request.result == {"settled": True}
        assert Process.objects.get().ledger[0]["accepted"] == 99
    finally:
        unregister_request_handler("test-settle")


def test_a_stop_refuses_what_is_still_asked(
    service: HeartService, beats: Beats, clock: FakeClock
) -> None:
    held = threading.Event()
    register_request_handler("test-hang", lambda args: held.wait(60))
    try:
        service.start("server")
        until(beats, clock, Process.objects.exists)
        request = ProcessRequest.objects.create(
            process=Process.objects.get(), kind="test-hang", args={}
        )

        def claimed() -> bool:
            request.refresh_from_db()
            return request.claimed_at is not None

        until(beats, clock, claimed)
        service.stop(60)
        request.refresh_from_db()
        assert "stopped before" in str(request.result)
    finally:
        held.set()
        unregister_request_handler("test-hang")


def test_a_stop_without_a_database_ends_all_the_same(
    service: HeartService,
    beats: Beats,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service.start("server")
    beats.wait()
    with monkeypatch.context() as patch:

        def away(*args: Any, **kwargs: Any) -> Any:
            raise OperationalError("away")

        patch.setattr(type(connections["default"]), "create_cursor", away)
        service.stop(60)
    assert "were not written" in caplog.text
    assert current_identity() is None
