"""Services: order, idempotence, deadlines, forks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from control.processes.lifecycle import Services


class Recorder:
    """A service that writes down what happens to it."""

    def __init__(self, name: str, order: int, log: list[str]) -> None:
        self.name = name
        self.order = order
        self.log = log
        self.deadline = 0.0
        self.fail_start = False
        self.hang: threading.Event | None = None
        self.hanging = threading.Event()

    def start(self, role: str) -> None:
        if self.fail_start:
            raise RuntimeError(f"{self.name} cannot start")
        self.log.append(f"+{self.name}")

    def stop(self, deadline_s: float) -> None:
        self.deadline = deadline_s
        self.hanging.set()
        if self.hang is not None:
            self.hang.wait(60)
        self.log.append(f"-{self.name}")

    def after_fork(self) -> None:
        self.log.append(f"~{self.name}")


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def services() -> Iterator[Services]:
    services = Services()
    yield services
    services.stop(5)


def test_lower_orders_start_first_and_stop_last(services: Services, log: list[str]) -> None:
    for name, order in (("ingest", 100), ("heart", 0), ("sinks", 50)):
        services.register(Recorder(name, order, log))
    services.start("server")
    assert services.role == "server"
    assert services.stop(5) is True
    assert log == ["+heart", "+sinks", "+ingest", "-ingest", "-sinks", "-heart"]
    assert services.role == ""


def test_start_and_stop_are_idempotent_and_repeatable(services: Services, log: list[str]) -> None:
    services.register(Recorder("a", 0, log))
    services.stop(5)
    services.start("server")
    services.start("server")
    services.stop(5)
    services.stop(5)
    services.start("server")
    assert log == ["+a", "-a", "+a"]


def test_a_service_registered_late_starts_at_once(services: Services, log: list[str]) -> None:
    services.start("server")
    services.register(Recorder("late", 0, log))
    assert log == ["+late"]


def test_a_failed_start_stops_what_had_started(services: Services, log: list[str]) -> None:
    services.register(Recorder("a", 0, log))
    bad = Recorder("b", 1, log)
    bad.fail_start = True
    services.register(bad)
    with pytest.raises(RuntimeError, match="b cannot start"):
        services.start("server")
    assert log == ["+a", "-a"]
    assert services.role == ""
    bad.fail_start = False
    services.start("server")
    assert log[2:] == ["+a", "+b"]


def test_a_hung_service_costs_the_deadline_and_no_more(log: list[str]) -> None:
    now = [0.0]
    services = Services(monotonic=lambda: now[0])
    hung, heart = Recorder("hung", 50, log), Recorder("heart", 0, log)
    hung.hang = threading.Event()
    for service in (hung, heart):
        services.register(service)
    services.start("server")
    now[0] = 100.0

    ended: list[bool] = []
    # The clock stands still, so only the wall clock of `join` can end the wait for the hung one.
    thread = threading.Thread(target=lambda: ended.append(services.stop(0.5)))
    thread.start()
    assert hung.hanging.wait(180)
    thread.join(180)
    assert ended == [False]
    assert "-heart" in log
    assert "-hung" not in log
    hung.hang.set()


def test_those_that_stop_later_are_left_some_time(log: list[str]) -> None:
    services = Services(monotonic=lambda: 0.0)
    first, last = Recorder("first", 50, log), Recorder("last", 0, log)
    for service in (first, last):
        services.register(service)
    services.start("server")
    services.stop(30.0)
    assert first.deadline == pytest.approx(29.0)
    assert last.deadline == pytest.approx(30.0)


def test_equal_orders_stop_at_the_same_time(services: Services, log: list[str]) -> None:
    one, two = Recorder("one", 5, log), Recorder("two", 5, log)
    # Each waits for the other to be stopping: one after the other, this would never end.
    one.hang, two.hang = two.hanging, one.hanging
    services.register(one)
    services.register(two)
    services.start("server")
    assert services.stop(30) is True
    assert sorted(log) == ["+one", "+two", "-one", "-two"]


@pytest.mark.concurrency
def test_start_and_stop_from_many_threads(services: Services, log: list[str]) -> None:
    services.register(Recorder("a", 0, log))
    barrier = threading.Barrier(6)

    def work(number: int) -> None:
        barrier.wait(180)
        for _ in range(25):
            if number % 2:
                services.start("server")
            else:
                services.stop(30)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    services.stop(30)
    assert log == ["+a", "-a"] * (len(log) // 2)


def test_a_forked_child_starts_anew(services: Services, log: list[str]) -> None:
    services.register(Recorder("a", 0, log))
    services.start("server")
    # What a child sees: everything of the parent's, under another pid.
    services._pid = os.getpid() + 1
    assert services.role == ""
    services.start("server")
    assert log == ["+a", "~a", "+a"]


def test_a_real_fork_has_nothing_started() -> None:
    """In a child of its own, where the process-wide services are armed for forks."""
    import subprocess
    import sys

    code = """
import os
from control.processes import lifecycle
class S:
    name, order = "s", 0
    def start(self, role): print("start", os.getpid() == parent, flush=True)
    def stop(self, deadline_s): pass
parent = os.getpid()
lifecycle.register(S())
lifecycle.start("server")
pid = os.fork()
if pid == 0:
    print("role", repr(lifecycle.services().role), flush=True)
    lifecycle.start("server")
    os._exit(0)
os.waitpid(pid, 0)
print("role", repr(lifecycle.services().role), flush=True)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.splitlines() == ["start True", "role ''", "start False", "role 'server'"]
