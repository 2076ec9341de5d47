"""An engine on a fake clock for one test, its figures, and threads begun together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipeline.engine import Engine
from pipeline.ids import RecordIds
from pipeline.receipt import Receipt
from pipeline.record import Record
from pipeline.runtime.clock import FakeClock
from pipeline.runtime.signals import Signals
from pipeline.spec import PipelineSpec
from tests.pipeline.support import PATIENCE_S, HeldSink


class Rig:
    """An engine on a fake clock, with signals; ended by the fixture whatever happened."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.signals = Signals()
        self.engine = Engine(
            log_id="log", ids=RecordIds(node=1, clock=self.clock), clock=self.clock
        )
        self.engine.observe(self.signals)
        self._held: list[HeldSink] = []

    def start(self, *specs: PipelineSpec) -> Engine:
        self.engine.configure(specs)
        self.engine.start()
        return self.engine

    def held_sink(self, *, obeys_abort: bool = True) -> HeldSink:
        """A sink that holds its writes, let go at the latest when the test ends."""
        sink = HeldSink(obeys_abort=obeys_abort)
        self._held.append(sink)
        return sink

    def offer(self, of: Sequence[Record], *, tenant: str = "t", type: str = "log") -> Receipt:
        return self.engine.offer(type=type, tenant=tenant, records=of)

    def row(self, sink: str = "a", tenant: str = "t") -> dict[str, Any]:
        """A row of the ledger; fails if any row of it is out of balance."""
        return ledger_row(self.engine, sink, tenant)

    def pipeline(self, name: str = "a") -> dict[str, Any]:
        return next(one for one in stats_of(self.engine)["pipelines"] if one["name"] == name)

    def end(self) -> None:
        for sink in self._held:
            sink.let_go()
        for one in (*self.engine.pipelines, *self.engine.retired):
            one.halt()
        for one in (*self.engine.pipelines, *self.engine.retired):
            for worker in one.workers:
                worker.thread.join(PATIENCE_S)
                assert not worker.thread.is_alive(), f"{worker.name} did not end"
        self.engine.stop(0.0)


def stats_of(engine: Engine) -> dict[str, Any]:
    stats: dict[str, Any] = engine.stats()
    return stats


def imbalances(engine: Engine) -> dict[tuple[str, str], int]:
    """The rows of the ledger that do not balance."""
    rows = stats_of(engine)["ledger"]
    return {(r["sink"], r["tenant"]): r["imbalance"] for r in rows if r["imbalance"]}


def ledger_row(engine: Engine, sink: str, tenant: str) -> dict[str, Any]:
    assert imbalances(engine) == {}
    rows = stats_of(engine)["ledger"]
    return next(r for r in rows if (r["sink"], r["tenant"]) == (sink, tenant))


def run_all(targets: Iterable[Callable[[], object]]) -> None:
    """Run each in a thread of its own, begun together; fails with the first error of any."""
    targets = list(targets)
    barrier = threading.Barrier(len(targets))
    errors: list[BaseException] = []

    def run(target: Callable[[], object]) -> None:
        try:
            barrier.wait(PATIENCE_S)
            target()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(target,), daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
