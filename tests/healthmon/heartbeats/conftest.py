"""Heartbeat targets, an engine's process that takes pings, and batches as sinks get them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.runtime.clock import FakeClock

# Models can only be imported once Django is set up, which is after this file is read.
if TYPE_CHECKING:
    from control.processes.models import Process
    from healthmon.targets.models import Target

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    from healthmon.heartbeats.index import index
    from healthmon.heartbeats.views import limits

    index().reset()
    limits.reset()
    yield
    index().reset()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def now_of(clock: FakeClock) -> datetime:
    return EPOCH + timedelta(microseconds=clock.time_us())


@pytest.fixture
def make_target(db: None) -> Callable[..., Target]:
    from healthmon.targets.models import Target

    def make(name: str = "backup", **fields: Any) -> Target:
        fields.setdefault("interval_s", 60.0)
        return Target.objects.create(name=name, kind="heartbeat", **fields)

    return make


@pytest.fixture
def server(db: None, clock: FakeClock) -> Callable[..., Process]:
    """The row of a process that takes pings and has told of itself just now."""
    from control.processes.models import Process

    def beat(
        *, role: str = "server", oldest_s: float = 0.0, ago_s: float = 0.0, **fields: Any
    ) -> Process:
        now = now_of(clock)
        key = "internal-heartbeats"
        values = {
            "role": role,
            "host": "here",
            "pid": 1,
            "log_id": "abc",
            "started_at": now - timedelta(days=1),
            "last_seen_at": now - timedelta(seconds=ago_s),
            "stats": {"log_id": "abc", "pipelines": [{"key": key, "oldest_s": oldest_s}]},
            **fields,
        }
        process, _ = Process.objects.update_or_create(role=role, defaults=values)
        return process

    return beat
