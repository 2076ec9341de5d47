"""Fixtures that the probes' tests share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator

import pytest

from healthmon.probes import trial
from healthmon.probes.tools import Tools


@pytest.fixture
def own_tools(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Tools | None], None]]:
    """Give trials these tools, resolver included, instead of the installation's."""
    trial.forget_tools()

    def give(tools: Tools | None) -> None:
        if tools is not None:
            monkeypatch.setattr(trial, "_tools", tools)
            monkeypatch.setattr(trial, "Resolver", lambda: tools.resolver)

    yield give
    trial.forget_tools()


@pytest.fixture(autouse=True, scope="session")
def _loops() -> Iterator[None]:
    """COLLECTOR_TEST_LOOP=uvloop runs all probes of these tests on uvloop."""
    if os.environ.get("COLLECTOR_TEST_LOOP") != "uvloop":
        yield
        return
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    yield
    asyncio.set_event_loop_policy(None)
