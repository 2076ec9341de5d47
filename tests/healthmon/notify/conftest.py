"""Servers that are told, and deliveries by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.healthmon.notify.smtpserver import Handler, Listener
from tests.healthmon.notify.webserver import WebServer
from tests.healthmon.probes.listeners.authority import Authority


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.stop()


@pytest.fixture
def secure_web(tmp_path) -> Iterator[WebServer]:
    server = WebServer(Authority(tmp_path).server_context())
    yield server
    server.stop()


@pytest.fixture
def smtp(tmp_path) -> Iterator[Callable[..., Listener]]:
    """`smtp(tls=True, starttls=True, login=True)`: a listener that runs; `.handler` records."""
    started: list[Listener] = []

    def start(*, tls: bool = False, starttls: bool = False, login: bool = False) -> Any:
        context = Authority(tmp_path).server_context() if tls or starttls else None
        listener = Listener(Handler(), context=context, starttls=starttls, login=login)
        listener.start()
        started.append(listener)
        return listener

    yield start
    for listener in started:
        listener.stop()
