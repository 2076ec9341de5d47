"""What dead checkers left in their logs: whose are waited for, for how long, and how often."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from healthmon.checker.former import LOOK_AGAIN_S, FormerLogs
from healthmon.leases.models import Checker
from pipeline.engine import Engine
from pipeline.runtime.clock import FakeClock

HOST = "here"
WAIT_S = 2.0
GENEROUS_S = 180.0

pytestmark = pytest.mark.django_db


class FakeEngine:
    """An engine that adopts what it is told to look for, as far as the test lets it."""

    def __init__(self) -> None:
        self.looks = 0
        self.on_look: Callable[[], None] = lambda: None
        self.adopted: list[dict[str, Any]] = []
        self.adoption: Any = SimpleNamespace(look=self._look)

    def _look(self) -> None:
        self.looks += 1
        self.on_look()

    def stats(self) -> dict[str, Any]:
        return {"log": {"adopted": self.adopted}}


class Pause:
    """Time passes while it is waited; `then` happens meanwhile."""

    def __init__(self, clock: FakeClock) -> None:
        self.waits = 0
        self.then: Callable[[], None] = lambda: None
        self._clock = clock

    def wait(self, seconds: float) -> None:
        self.waits += 1
        self._clock.advance(seconds)
        self.then()


class Scene:
    def __init__(self, wal: Path) -> None:
        self.wal = wal
        self.clock = FakeClock()
        self.engine = FakeEngine()
        self.logs = FormerLogs(
            own_id="me",
            engine=lambda: cast(Engine, self.engine),
            wal=wal,
            clock=self.clock,
            wait_s=WAIT_S,
            host=HOST,
        )
        self.pause = Pause(self.clock)
        self.logs._pause = cast(Any, self.pause)

    def deliver(self, *holders: str) -> float:
        """Returns the seconds it took."""
        began = self.clock.monotonic()
        self.logs.deliver(dict(enumerate(holders)))
        return self.clock.monotonic() - began

    def checker(self, name: str, *, pid: int, host: str = HOST, log: bool = True) -> Path:
        Checker.objects.create(
            id=name, host=host, pid=pid, log_id=f"log-{name}", expires_at=datetime.now(UTC)
        )
        directory = self.wal / f"log-{name}"
        if log:
            directory.mkdir()
        return directory


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture(scope="module")
def dead_pid() -> int:
    """Of a process that was, and is no more."""
    process = subprocess.Popen((sys.executable, "-c", ""))
    process.wait(GENEROUS_S)
    return process.pid


@pytest.fixture
def living_pid() -> Any:
    with subprocess.Popen(
        (sys.executable, "-c", "import sys; sys.stdin.read()"), stdin=subprocess.PIPE
    ) as process:
        yield process.pid
        process.kill()


def test_a_dead_ones_log_is_adopted_and_waited_for_until_it_is_gone(
    scene: Scene, dead_pid: int
) -> None:
    log = scene.checker("dead", pid=dead_pid)
    scene.engine.on_look = lambda: scene.engine.adopted.append(
        {"log_id": "log-dead", "left_records": 3}
    )

    def delivered_at_the_third_look() -> None:
        if scene.pause.waits == 3:
            log.rmdir()

    scene.pause.then = delivered_at_the_third_look
    assert scene.deliver("dead") == pytest.approx(3 * LOOK_AGAIN_S)
    assert scene.engine.looks == 1


def test_an_adopted_log_that_owes_nothing_is_not_waited_for(scene: Scene, dead_pid: int) -> None:
    """Its directory may stay a while longer."""
    scene.checker("dead", pid=dead_pid)
    scene.engine.adopted = [{"log_id": "log-dead", "left_records": 0}]
    assert scene.deliver("dead") == 0
    assert scene.engine.looks == 1


def test_the_wait_is_bounded_and_said(
    scene: Scene, dead_pid: int, caplog: pytest.LogCaptureFixture
) -> None:
    scene.checker("dead", pid=dead_pid)
    with caplog.at_level("INFO", logger="healthmon.checker.former"):
        assert WAIT_S <= scene.deliver("dead") < WAIT_S + 2 * LOOK_AGAIN_S
    [line] = caplog.records
    assert line.__dict__["logs"] == ["log-dead"]


def test_one_that_only_stands_still_has_its_log(scene: Scene, living_pid: int) -> None:
    """Frozen or starved, it will thaw, and writes to that log itself."""
    scene.checker("frozen", pid=living_pid)
    assert scene.deliver("frozen") == 0
    assert scene.engine.looks == 0


def test_a_frozen_one_that_dies_later_is_dealt_with_then(
    scene: Scene, living_pid: int, dead_pid: int
) -> None:
    scene.checker("frozen", pid=living_pid)
    scene.deliver("frozen")
    Checker.objects.filter(pk="frozen").update(pid=dead_pid)
    assert scene.deliver("frozen") >= WAIT_S
    assert scene.engine.looks == 1


def test_a_log_on_another_machine_is_delivered_there(scene: Scene, dead_pid: int) -> None:
    scene.checker("far", pid=dead_pid, host="elsewhere", log=True)
    assert scene.deliver("far") == 0
    assert scene.engine.looks == 0


@pytest.mark.parametrize("holders", [(), ("",), ("me",), ("nobody",)])
def test_whose_there_is_nothing_to_do_about(scene: Scene, holders: tuple[str, ...]) -> None:
    scene.checker("me", pid=1)
    assert scene.deliver(*holders) == 0
    assert scene.engine.looks == 0


def test_one_that_left_no_log_is_not_waited_for(scene: Scene, dead_pid: int) -> None:
    scene.checker("dead", pid=dead_pid, log=False)
    assert scene.deliver("dead") == 0
    assert scene.engine.looks == 0


def test_each_end_is_dealt_with_once(scene: Scene, dead_pid: int) -> None:
    scene.checker("dead", pid=dead_pid)
    assert scene.deliver("dead", "dead") >= WAIT_S
    assert scene.deliver("dead") == 0
    assert scene.engine.looks == 1


def test_several_are_waited_for_together(scene: Scene, dead_pid: int) -> None:
    for name in ("one", "two", "three"):
        scene.checker(name, pid=dead_pid)
    assert scene.deliver("one", "two", "three", "", "me") < WAIT_S + 2 * LOOK_AGAIN_S
    assert scene.engine.looks == 1


def test_an_engine_that_adopts_nothing_costs_the_wait_at_most(scene: Scene, dead_pid: int) -> None:
    scene.checker("dead", pid=dead_pid)
    scene.engine.adoption = None
    assert scene.deliver("dead") < WAIT_S + 2 * LOOK_AGAIN_S
