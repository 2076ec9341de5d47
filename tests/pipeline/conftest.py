"""Fixtures of the engine's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from pipeline.runtime.clock import FakeClock
from tests.pipeline.rig import Rig

# How long an example takes says nothing on a shared machine.
settings.register_profile("engine", deadline=None)
settings.load_profile("engine")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def rig() -> Iterator[Rig]:
    """An engine on a fake clock, ended after the test."""
    rig = Rig()
    yield rig
    rig.end()
