"""One stress test for everything that runs: started and stopped from many threads, in any order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Protocol

import pytest

from pipeline.adoption import Adoption
from pipeline.delivery.watchdog import Watchdog
from pipeline.delivery.workers import Worker, WorkerPool
from pipeline.engine import Engine
from pipeline.ids import RecordIds
from pipeline.log.files import LogFiles
from pipeline.log.keeper import Keeper
from pipeline.log.log import Log
from pipeline.log.settings import LogSettings
from pipeline.observer import Observer
from pipeline.pipeline import Pipeline
from pipeline.runtime.clock import SystemClock
from tests.pipeline.rig import run_all
from tests.pipeline.support import PATIENCE_S, ScriptedSink, records, spec

THREADS, STEPS = 8, 6


class Service(Protocol):
    """What is asked of everything that is started and stopped."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class _Service:
    def __init__(self, start: Callable[[], object], stop: Callable[[], object]) -> None:
        self._start, self._stop = start, stop

    def start(self) -> None:
        self._start()

    def stop(self) -> None:
        self._stop()


def log_settings(root: Path) -> LogSettings:
    return LogSettings(directory=root / "wal", segment_bytes=4096, adopt_every_s=0.01)


def engine_in_memory(root: Path) -> Service:
    return _engine(Engine(log_id="log", ids=RecordIds(node=1)))


def engine_with_files(root: Path) -> Service:
    ids = RecordIds(node=1)
    return _engine(Engine(log_id="ab" * 16, ids=ids, log_settings=log_settings(root)))


def _engine(engine: Engine) -> Service:
    sinks = [spec(ScriptedSink(), key=key, min_workers=2, max_workers=4) for key in ("a", "b")]
    engine.configure(sinks)
    engine.offer(type="log", tenant="t", records=records(20), durable=True)

    def stop() -> None:
        engine.stop(PATIENCE_S)

    return _Service(engine.start, stop)


def keeper(root: Path) -> Service:
    files = LogFiles.create(log_id="cd" * 16, settings=log_settings(root), observer=Observer())
    log = Log(log_id="cd" * 16, files=files)
    log.checkpoint()
    one = Keeper(own=log, logs=lambda: [log], relieve=lambda file: None, clock=SystemClock())
    return _Service(one.start, lambda: one.stop(PATIENCE_S))


def adoption(root: Path) -> Service:
    for number in range(3):
        dead = Engine(
            log_id=f"{number:032x}", ids=RecordIds(node=1), log_settings=log_settings(root)
        )
        dead.configure([spec(ScriptedSink())])
        dead.offer(type="log", tenant="t", records=records(2), durable=True)
        dead.abandon()
    one = Adoption(
        settings=log_settings(root),
        clock=SystemClock(),
        attach=lambda adopted: None,
        finished=lambda log: None,
        told=lambda log_id, records: None,
    )

    def stop() -> None:
        one.stop(PATIENCE_S)
        one.finish()

    return _Service(one.start, stop)


def watchdog(root: Path) -> Service:
    one = Watchdog(look=lambda: None, clock=SystemClock())
    return _Service(one.start, lambda: one.stop(PATIENCE_S))


def pipeline(root: Path) -> Service:
    one = Pipeline(
        spec=spec(ScriptedSink(), min_workers=3, max_workers=5),
        journal=Log(log_id="log"),
        clock=SystemClock(),
        observer=Observer(),
    )

    def stop() -> None:
        one.begin_drain()
        one.halt()
        one.abort(PATIENCE_S)
        assert one.end(PATIENCE_S) == []

    return _Service(one.start, stop)


def worker_pool(root: Path) -> Service:
    stopped = threading.Event()

    def work(worker: Worker) -> None:
        while not (worker.stopping or stopped.is_set()):
            stopped.wait(0.001)

    pool = WorkerPool(name="pool", work=work, ended=lambda worker: None, clock=SystemClock())

    def start() -> None:
        if not stopped.is_set():
            pool.grow(limit=5)

    def stop() -> None:
        stopped.set()
        assert pool.join(PATIENCE_S) == []

    return _Service(start, stop)


SERVICES = [
    engine_in_memory,
    engine_with_files,
    keeper,
    adoption,
    watchdog,
    pipeline,
    worker_pool,
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", SERVICES, ids=lambda make: make.__name__)
def test_it_starts_and_stops_in_any_order_from_many_threads_and_leaves_none(
    make: Callable[[Path], Service], seed: int, tmp_path: Path
) -> None:
    before = set(threading.enumerate())
    service = make(tmp_path)
    random = Random(seed)

    def act(steps: list[str]) -> None:
        for step in steps:
            getattr(service, step)()

    plans = [
        [random.choice(("start", "start", "stop")) for _ in range(STEPS)] for _ in range(THREADS)
    ]
    run_all([lambda steps=steps: act(steps) for steps in plans])  # type: ignore[misc]
    service.stop()
    service.start()
    service.stop()
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), f"{thread.name} runs still"


@pytest.mark.parametrize("make", SERVICES, ids=lambda make: make.__name__)
def test_it_can_be_stopped_before_it_was_started(
    make: Callable[[Path], Service], tmp_path: Path
) -> None:
    before = set(threading.enumerate())
    service = make(tmp_path)
    service.stop()
    service.start()
    service.stop()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), f"{thread.name} was started after the stop"
