"""Owns: ways of getting single records into a store, to be compared, behind one interface.

All but the naive one are the engine with other settings, so that only the rule differs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from benchmarks.tally import Store, now_us
from pipeline.batching.adaptive import AdaptiveSettings
from pipeline.delivery.autoscaler import AutoscaleSettings
from pipeline.delivery.retry import RetryPolicy
from pipeline.engine import Engine
from pipeline.errors import Saturated
from pipeline.ids import RecordIds
from pipeline.intake.router import Route
from pipeline.record import Record
from pipeline.settings import PipelineSettings
from pipeline.spec import PipelineSpec

_PAYLOAD = b'{"level":"INFO","service":"cart","message":"' + b"x" * 140 + b'"}'
# So much may be held: what is handed over faster has to wait, so that a rate is that of the store.
_CAPACITY = 50_000
_DRAIN_S = 120.0


def record() -> Record:
    return Record(now_us(), 9, "cart", "x" * 40, "", "", _PAYLOAD)


class Batcher(Protocol):
    def submit(self) -> None: ...

    def close(self) -> None: ...


class Naive:
    """Writes each record where it is made, and waits for it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def submit(self) -> None:
        self._store.store([record().timestamp_us])

    def close(self) -> None:
        return


class Engined:
    """The engine around one store."""

    def __init__(self, store: Store, settings: PipelineSettings) -> None:
        self._engine = Engine(log_id="benchmark", ids=RecordIds(node=1))
        self._engine.configure(
            [
                PipelineSpec(
                    key="store",
                    name="store",
                    sink_factory=lambda: store,
                    route=Route(types=None, tenants=None),
                    settings=settings,
                )
            ]
        )
        self._engine.start()

    def submit(self) -> None:
        one = [record()]
        while True:
            try:
                self._engine.offer(type="log", tenant="default", records=one)
                return
            except Saturated:
                time.sleep(0.001)

    def close(self) -> None:
        if not self._engine.drain(_DRAIN_S):
            raise RuntimeError(f"the engine did not drain within {_DRAIN_S:g} s")
        self._engine.stop(10.0)


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way by its name; None stands for the naive one.  `fails`: see Store."""

    name: str
    settings: PipelineSettings | None
    fails: int = 0

    def open(self, store: Store) -> Batcher:
        return Naive(store) if self.settings is None else Engined(store, self.settings)


def _settings(
    *,
    max_wait_s: float = 0.05,
    max_workers: int = 1,
    adaptive: bool = False,
    interval_s: float = 1.0,
) -> PipelineSettings:
    return PipelineSettings(
        max_records=500,
        max_wait_s=max_wait_s,
        capacity_records=_CAPACITY,
        max_workers=max_workers,
        retry=RetryPolicy(base_s=0.01, cap_s=1.0, max_attempts=5),
        autoscale=AutoscaleSettings(interval_s=interval_s, cooldown_s=interval_s),
        adaptive=AdaptiveSettings(batch=adaptive, concurrency=adaptive and max_workers > 1),
    )


WAYS = (
    Way(name="naive, one by one", settings=None),
    Way(name="size only (500)", settings=_settings(max_wait_s=3600.0)),
    Way(name="size or time (500, 50 ms)", settings=_settings()),
    Way(name="… 1 write in 20 fails once", settings=_settings(), fails=20),
    Way(name="adaptive size", settings=_settings(adaptive=True)),
    Way(
        name="adaptive, up to 4 workers",
        settings=_settings(adaptive=True, max_workers=4, interval_s=0.1),
    ),
)
