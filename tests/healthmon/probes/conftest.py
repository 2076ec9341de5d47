"""Fixtures that the probes' tests share."""

from __future__ import annotations

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
