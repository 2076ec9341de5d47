"""The check of the ledgers: an imbalance that lasts is an alarm with its place, and ends as one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from pipeline.runtime.clock import FakeClock
from sinks.conservation import ALARM_AFTER_S, ConservationService, ConservationWatch
from sinks.metricset import Metrics

PATIENCE_S = 180.0


def ledger(*rows: tuple[str, str, int]) -> list[dict[str, Any]]:
    return [{"sink": sink, "tenant": tenant, "imbalance": size} for sink, tenant, size in rows]


def stats(*rows: tuple[str, str, int], adopted: int = 0) -> dict[str, Any]:
    """Figures with these rows; `adopted` is the imbalance of an adopted log for db and acme."""
    theirs = [{"log_id": "theirs", "ledger": ledger(("db", "acme", adopted))}] if adopted else []
    return {"log_id": "ours", "ledger": ledger(*rows), "log": {"adopted": theirs}}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def watch(clock: FakeClock, registry: CollectorRegistry) -> ConservationWatch:
    return ConservationWatch(clock=clock, into=Metrics(registry))


def alarm(registry: CollectorRegistry, sink: str) -> float | None:
    return registry.get_sample_value("ledger_alarm", {"sink": sink})


def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [line for line in caplog.records if line.name == "sinks.conservation"]


def test_an_imbalance_that_lasts_is_told_once_with_its_place_and_again_when_it_ends(
    watch: ConservationWatch,
    clock: FakeClock,
    registry: CollectorRegistry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    since = clock.time_us() / 1e6
    for _ in range(int(ALARM_AFTER_S)):
        watch.check(stats(("db", "acme", 7), ("db", "other", 0)))
        assert watch.alarms() == []
        assert lines(caplog) == []
        clock.advance(1.0)
    for size in (7, 9):
        watch.check(stats(("db", "acme", size), ("db", "other", 0)))
        clock.advance(1.0)
    (line,) = lines(caplog)
    assert line.levelno == logging.ERROR
    about = {"sink": "db", "tenant": "acme", "records": 7, "log_id": "ours", "since": since}
    assert {name: getattr(line, name) for name in about} == about
    assert watch.alarms() == [
        {
            "kind": "imbalance",
            "sink": "db",
            "tenant": "acme",
            "records": 9,
            "since": since,
            "log_id": "ours",
        }
    ]
    assert alarm(registry, "db") == 1
    watch.check(stats(("db", "acme", 0)))
    assert watch.alarms() == []
    assert alarm(registry, "db") == 0
    assert "balances again" in lines(caplog)[-1].getMessage()
    assert lines(caplog)[-1].levelno == logging.ERROR


def test_an_imbalance_that_comes_and_goes_is_no_alarm(
    watch: ConservationWatch, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    for size in (3, 0, 3, 0, 3):
        watch.check(stats(("db", "t", size)))
        clock.advance(ALARM_AFTER_S - 1)
    assert watch.alarms() == []
    assert lines(caplog) == []


def test_each_row_has_an_alarm_of_its_own_and_a_sink_is_well_when_all_its_rows_are(
    watch: ConservationWatch, clock: FakeClock, registry: CollectorRegistry
) -> None:
    rows = [("db", "a", 2), ("db", "b", -5), ("file", "a", 1)]
    for _ in range(2):
        watch.check(stats(*rows))
        clock.advance(ALARM_AFTER_S)
    assert [(one["sink"], one["tenant"], one["records"]) for one in watch.alarms()] == [
        ("db", "b", -5),
        ("db", "a", 2),
        ("file", "a", 1),
    ]
    watch.check(stats(("db", "b", -5)))
    assert (alarm(registry, "db"), alarm(registry, "file")) == (1, 0)


def test_the_ledger_of_an_adopted_log_has_its_own_alarm(
    watch: ConservationWatch, clock: FakeClock
) -> None:
    for _ in range(2):
        watch.check(stats(("db", "acme", 0), adopted=3))
        clock.advance(ALARM_AFTER_S)
    (alarm,) = watch.alarms()
    assert (alarm["log_id"], alarm["sink"], alarm["records"]) == ("theirs", "db", 3)


def test_a_report_without_figures_raises_no_alarm(watch: ConservationWatch) -> None:
    watch.check({})
    assert watch.alarms() == []


class Engine:
    """Answers with what the test says, and tells when it was asked."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.answer: dict[str, Any] | Exception = stats(("db", "t", 4))

    def __call__(self) -> dict[str, Any]:
        self.asked.release()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def await_asked(self) -> None:
        assert self.asked.acquire(timeout=PATIENCE_S)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def service(
    clock: FakeClock, registry: CollectorRegistry, engine: Engine
) -> Iterator[ConservationService]:
    service = ConservationService(clock=clock, stats=engine, into=Metrics(registry))
    yield service
    service.stop(PATIENCE_S)


def test_the_service_checks_every_second_and_ends_at_once(
    service: ConservationService, clock: FakeClock, engine: Engine
) -> None:
    service.start("server")
    service.start("server")
    for _ in range(int(ALARM_AFTER_S) + 1):
        engine.await_asked()
        clock.await_waiting(1)
        clock.advance(1.0)
    engine.await_asked()
    clock.await_waiting(1)
    assert [one["records"] for one in service.alarms()] == [4]
    assert not engine.asked.acquire(blocking=False)
    service.stop(PATIENCE_S)
    service.stop(PATIENCE_S)
    assert "conservation" not in {thread.name for thread in threading.enumerate()}


def test_a_check_that_fails_is_told_once_and_does_not_end_the_thread(
    service: ConservationService,
    clock: FakeClock,
    engine: Engine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.answer = RuntimeError("changed size during iteration")
    service.start("server")
    for _ in range(3):
        engine.await_asked()
        clock.await_waiting(1)
        clock.advance(1.0)
    engine.await_asked()
    assert len(lines(caplog)) == 1


def test_a_command_has_nothing_to_check(service: ConservationService, engine: Engine) -> None:
    service.start("command")
    assert not engine.asked.acquire(blocking=False)
    assert "conservation" not in {thread.name for thread in threading.enumerate()}
