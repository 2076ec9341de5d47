"""Fixtures of the front door's tests: an engine with a memory sink behind Django's test client.

Imports of ours stand inside: this file is read before Django is set up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from tests.ingest.front import Front


@pytest.fixture
def log_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that keeps no log on the disk, for tests that name it before `front`."""
    from sinks import service

    monkeypatch.setattr(service, "_log_settings", lambda: None)


@pytest.fixture
def log_unsynced(settings: Any) -> None:
    """An engine whose log is not synced for each request, likewise."""
    log = dataclasses.replace(settings.COLLECTOR.log, fsync="never")
    settings.COLLECTOR = dataclasses.replace(settings.COLLECTOR, log=log)


@pytest.fixture
def front(db: None, settings: Any, request: pytest.FixtureRequest) -> Iterator[Front]:
    from control.auth.keys import keyring
    from ingest.api import door
    from pipeline.intake.router import Route
    from pipeline.settings import PipelineSettings
    from pipeline.spec import PipelineSpec
    from sinks import service
    from sinks.backends.memory import MemorySink

    # What the server puts in front of ingest.
    settings.MIDDLEWARE = settings.INGEST_MIDDLEWARE
    keyring().invalidate()
    assert keyring().empty  # read here, where the test's transaction is, not on a request's thread
    door.reset()
    service.current().start("test")
    engine, sink = service.current().engine, MemorySink()
    spec = PipelineSpec(
        key="memory",
        name="memory",
        sink_factory=lambda: sink,
        route=Route(),
        required=True,
        paused=False,
        settings=PipelineSettings(**getattr(request, "param", {})),
        fingerprint="memory",
    )
    engine.configure([spec])

    def limits(**changes: Any) -> None:
        door.reset(dataclasses.replace(settings.COLLECTOR.ingest, **changes))

    try:
        yield Front(Client(), sink, engine, limits)
    finally:
        sink.release()
        service.current().stop(10.0)
        door.reset()
        keyring().take_used()
        keyring().invalidate()
